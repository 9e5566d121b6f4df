package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/aiondb/aiondb-ha/internal/term"
	"github.com/aiondb/aiondb-ha/internal/torture"
)

const tortureUsage = `usage: aiondb-ha torture [--minutes 1] [--nodes 3] [--seed N] [--faults LIST] [--json]
                         [--report FILE] [--keep DIR] [--steps N] [--target WHO] [--busy N]

Runs a cluster of real processes on this machine under load, breaks it in every
way it knows, and judges from the clients' own records whether it did what it
promises: no acknowledged write lost, no two primaries at once, every history
linearizable, a primary within %v whenever a quorum is connected.

  --minutes N    how long, a fraction or more (default 1)
  --nodes N      how many nodes, %d to %d (default %d)
  --seed N       repeat the script of another run (default: a new one, which is told)
  --faults LIST  only these faults, by commas
  --target WHO   primary or replica: whom faults hit that could hit any node
  --steps N      end after so many faults, if that is earlier
  --busy N       processes that keep the processor busy beside it
  --report FILE  write a picture of the run: one page of HTML
  --keep DIR     keep data, logs and records in DIR, which must be new or empty
  --profile NAME run the nodes with this profile (AIONDB_HA_PROFILE)
  --json         print the verdict as one JSON object, last, on standard output

As root on Linux, or where everybody may make name spaces, networks are cut and
a disk is filled too; the verdict says what was used, and what was left out.
Ctrl-C ends the faults, and the verdict is about the time until then.

faults: %s
`

// tortureFlags is the command line of `aiondb-ha torture`.
type tortureFlags struct {
	minutes            float64
	nodes, steps, busy int
	seed               uint64
	faults, target     string
	report, keep       string
	profile, form      string
	json               bool
}

// runTorture is `aiondb-ha torture`. It ends with its time, or with a signal,
// and leaves nothing behind but what it was asked to keep.
func runTorture(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var in tortureFlags
	flags := flag.NewFlagSet("torture", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.Float64Var(&in.minutes, "minutes", 1, "")
	flags.IntVar(&in.nodes, "nodes", torture.MinNodes, "")
	flags.Uint64Var(&in.seed, "seed", 0, "")
	flags.IntVar(&in.steps, "steps", 0, "")
	flags.IntVar(&in.busy, "busy", 0, "")
	flags.StringVar(&in.target, "target", "", "")
	flags.StringVar(&in.faults, "faults", "", "")
	flags.StringVar(&in.report, "report", "", "")
	flags.StringVar(&in.keep, "keep", "", "")
	flags.StringVar(&in.profile, "profile", "", "")
	flags.StringVar(&in.form, "o", "", "")
	flags.BoolVar(&in.json, "json", false, "")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintf(stdout, tortureUsage, torture.MaxWithoutPrimary, torture.MinNodes, torture.MaxNodes, torture.MinNodes,
			strings.Join(torture.FaultNames(), ", "))
		return exitDone
	case err != nil:
		return tortureMisused(stderr, err.Error())
	case flags.NArg() > 0:
		return tortureMisused(stderr, "unexpected argument "+flags.Arg(0))
	case in.form != "" && in.form != "json":
		return tortureMisused(stderr, "-o "+in.form+": want json")
	}
	in.json = in.json || in.form == "json"
	cfg, err := in.config(stdout, stderr)
	if err != nil {
		return tortureMisused(stderr, err.Error())
	}

	// A closed terminal and a closed pipe end it like Ctrl-C does.
	signals := make(chan os.Signal, 4)
	ending := []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE}
	signal.Notify(signals, ending...)
	defer signal.Stop(signals)
	if code, killed, done := torture.Confine(signals); done {
		if killed != "" {
			fmt.Fprintf(stderr, "aiondb-ha: torture: ended by a signal: %s\n", killed)
		}
		return code
	}
	signal.Stop(signals)
	ctx, stop := signal.NotifyContext(ctx, ending...)
	defer stop()
	context.AfterFunc(ctx, stop) // the second signal ends the program at once, and the nodes with it
	verdict, err := torture.Run(ctx, cfg)
	if err != nil {
		fmt.Fprintf(stderr, "aiondb-ha: torture: %s\n", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	if in.json {
		if encodeErr := json.NewEncoder(stdout).Encode(verdict); encodeErr != nil {
			return exitFailed
		}
	}
	if err != nil {
		return exitFailed
	}
	return exitDone
}

// config checks the command line.
func (in tortureFlags) config(stdout, stderr io.Writer) (torture.Config, error) {
	if !(in.minutes > 0) || in.minutes > torture.MaxDuration.Minutes() {
		return torture.Config{}, fmt.Errorf("--minutes %v: want more than 0 and at most %v", in.minutes, torture.MaxDuration.Minutes())
	}
	if in.nodes < 1 {
		return torture.Config{}, fmt.Errorf("%d nodes: want %d to %d", in.nodes, torture.MinNodes, torture.MaxNodes)
	}
	cfg := torture.Config{
		Duration: time.Duration(in.minutes * float64(time.Minute)), Nodes: in.nodes, Seed: in.seed, Keep: in.keep, Report: in.report,
		Version: version, Out: stdout, Steps: in.steps, Busy: in.busy, Target: torture.Target(in.target),
	}
	for name := range strings.SplitSeq(in.faults, ",") {
		if name = strings.TrimSpace(name); name != "" {
			cfg.Faults = append(cfg.Faults, torture.Fault(name))
		}
	}
	if in.profile != "" {
		cfg.Env = append(cfg.Env, "AIONDB_HA_PROFILE="+in.profile)
	}
	if in.json { // standard output is the verdict's; a person may still watch
		if cfg.Out = nil; term.IsTerminal(stderr) {
			cfg.Out = stderr
		}
	}
	cfg.Style, cfg.Live = term.For(cfg.Out, os.Getenv), term.IsTerminal(cfg.Out)
	return cfg, cfg.Validate()
}

func tortureMisused(stderr io.Writer, reason string) int {
	fmt.Fprintf(stderr, "aiondb-ha: torture: %s (aiondb-ha torture --help)\n", strings.ReplaceAll(reason, "\n", "; "))
	return exitUsage
}
