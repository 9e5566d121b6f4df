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

	"github.com/aiondb/aiondb-ha/internal/democluster"
	"github.com/aiondb/aiondb-ha/internal/term"
)

const demoUsage = `usage: aiondb-ha demo [--nodes 3] [--once] [--json] [--keep DIR]

Runs a cluster of real processes on this machine, kills its primary with
SIGKILL, and shows that another takes over and that no acknowledged write is
lost. On a terminal the cluster then keeps running for you to break, until
Ctrl-C.

  --nodes N   how many nodes, %d to %d (default %d)
  --once      the tour alone, then stop
  --json      print the verdict as one JSON object on standard output; implies --once
  --keep DIR  keep data and logs in DIR, which must be new or empty
`

// runDemo is `aiondb-ha demo`. It ends when the tour has, or with ctx or a
// signal, and leaves no process behind.
func runDemo(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	nodes := flags.Int("nodes", democluster.DefaultNodes, "")
	once := flags.Bool("once", false, "")
	asJSON := flags.Bool("json", false, "")
	form := flags.String("o", "", "")
	keep := flags.String("keep", "", "")
	usage := fmt.Sprintf(demoUsage, democluster.MinTourNodes, democluster.MaxNodes, democluster.DefaultNodes)
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, usage)
		return 0
	case err == nil && flags.NArg() > 0:
		return demoMisused(stderr, "unexpected argument "+flags.Arg(0))
	case err == nil && *form != "" && *form != "json":
		return demoMisused(stderr, "-o "+*form+": want json")
	case err != nil:
		return demoMisused(stderr, err.Error())
	}
	*asJSON = *asJSON || *form == "json"

	cfg := democluster.TourConfig{
		Cluster: democluster.Config{Nodes: *nodes, Dir: *keep},
		Out:     stdout,
		Program: os.Args[0],
		Version: version,
		Stay:    !*once && !*asJSON && term.IsTerminal(stdout),
	}
	if *asJSON { // standard output is the verdict's; a person may still watch
		if cfg.Out = nil; term.IsTerminal(stderr) {
			cfg.Out = stderr
		}
	}
	cfg.Style, cfg.Live = term.For(cfg.Out, os.Getenv), term.IsTerminal(cfg.Out)
	if err := cfg.Validate(); err != nil || *nodes < 1 {
		if err == nil {
			err = fmt.Errorf("%d nodes: want %d to %d", *nodes, democluster.MinTourNodes, democluster.MaxNodes)
		}
		return demoMisused(stderr, err.Error())
	}

	// A closed terminal and a closed pipe end the tour like Ctrl-C does.
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	verdict, err := democluster.Tour(ctx, cfg)
	if err != nil {
		reason := strings.ReplaceAll(err.Error(), "\n", "; ")
		if verdict.Dir != "" && *keep == "" {
			reason += ": data and logs are in " + verdict.Dir
		}
		fmt.Fprintf(stderr, "aiondb-ha: demo: %s\n", reason)
	}
	if *asJSON {
		if encodeErr := json.NewEncoder(stdout).Encode(verdict); encodeErr != nil {
			return 1
		}
	} else if err == nil && *keep != "" {
		fmt.Fprintf(stdout, "  data and logs are in %s\n", verdict.Dir)
	}
	if err != nil {
		return 1
	}
	return 0
}

func demoMisused(stderr io.Writer, reason string) int {
	fmt.Fprintf(stderr, "aiondb-ha: demo: %s (aiondb-ha demo --help)\n", reason)
	return 2
}
