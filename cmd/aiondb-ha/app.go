package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/aiondb/aiondb-ha/internal/settings"
	"github.com/aiondb/aiondb-ha/internal/term"
)

// The exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// app is one run of the program: what it may touch, so that tests can hand it
// something else.
type app struct {
	ctx            context.Context
	stdin          io.Reader
	stdout, stderr io.Writer
	environ        []string // in the form of os.Environ
}

// command is one thing the program does.
type command struct {
	name     string // one word, or two: "kv put"
	args     string // the positional arguments, for the usage line
	short    string // one line, no full stop
	long     string // what else there is to know; may be empty
	examples []string
	min, max int  // number of positional arguments
	client   bool // asks a node: --api, --timeout
	data     bool // prints data: --json, -o
	// setup registers the command's own flags and returns what runs it.
	setup func(fs *flag.FlagSet) runner
	// raw, when set, runs the command instead, with its arguments as they are.
	raw func(a *app, args []string) int
}

// runner does what a command is for. What it returns is told on stderr.
type runner func(a *app, in *input) error

// input is a command line, parsed.
type input struct {
	args    []string // positional
	json    bool
	api     string
	access  access
	timeout durationFlag
}

// usageError is the user's mistake: exit code 2.
type usageError struct{ reason string }

func (e *usageError) Error() string { return e.reason }

func misused(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// commands returns everything there is, in the order in which help shows it.
func commands() []command {
	return slices.Concat(
		runCommands(),
		clusterCommands(),
		pauseCommands(),
		kvCommands(),
		shardCommands(),
		logCommands(),
		certCommands(),
		toolCommands(),
	)
}

// defaults names what a group does when it is called alone.
func defaults() map[string]string { return map[string]string{"kv": "kv list", "config": "config list"} }

func (a *app) getenv(name string) string {
	for _, pair := range slices.Backward(a.environ) {
		if value, ok := strings.CutPrefix(pair, name+"="); ok {
			return value
		}
	}
	return ""
}

// style returns the colours for stdout.
func (a *app) style() term.Style { return term.For(a.stdout, a.getenv) }

// run runs one command line and returns the exit code.
func (a *app) run(args []string) int {
	if len(args) == 0 {
		writeOverview(a.stderr, term.For(a.stderr, a.getenv))
		return exitUsage
	}
	switch args[0] {
	case "help", "-h", "-help", "--help":
		return a.help(args[1:])
	case "-version", "--version":
		args = []string{"version"}
	}
	hoisted, args := hoist(args)
	if len(args) == 0 {
		return a.report(nil, misused("flags, but no command (aiondb-ha help)"))
	}
	cmd, rest, err := find(args)
	if err != nil {
		return a.report(nil, err)
	}
	rest = append(hoisted, rest...)
	if cmd.raw != nil {
		return cmd.raw(a, rest)
	}
	in, run, err := parse(cmd, rest)
	if errors.Is(err, flag.ErrHelp) {
		writeHelp(a.stdout, a.style(), cmd)
		return exitDone
	}
	if err == nil {
		err = run(a, in)
	}
	return a.report(cmd, err)
}

// report says what went wrong and returns the exit code.
func (a *app) report(cmd *command, err error) int {
	if err == nil {
		return exitDone
	}
	var usage *usageError
	misused := errors.As(err, &usage)
	for line := range strings.SplitSeq(strings.TrimSpace(err.Error()), "\n") {
		if misused && cmd != nil {
			line += " (aiondb-ha help " + cmd.name + ")"
		}
		fmt.Fprintln(a.stderr, "aiondb-ha: "+line)
	}
	if misused {
		return exitUsage
	}
	return exitFailed
}

// help explains one command, one group, or all.
func (a *app) help(words []string) int {
	if len(words) == 0 {
		writeOverview(a.stdout, a.style())
		return exitDone
	}
	cmd, _, err := find(append(slices.Clone(words[:min(2, len(words))]), "--help"))
	switch {
	case err == nil && cmd.raw != nil:
		return cmd.raw(a, []string{"--help"})
	case err == nil && (len(words) > 1 || cmd.name == words[0]):
		writeHelp(a.stdout, a.style(), cmd)
		return exitDone
	case len(words) == 1 && len(group(words[0])) > 0:
		writeGroup(a.stdout, a.style(), words[0])
		return exitDone
	}
	return a.report(nil, err)
}

// find returns the command that args begin with, and the rest.
func find(args []string) (*command, []string, error) {
	all := commands()
	byName := func(name string) *command {
		if i := slices.IndexFunc(all, func(c command) bool { return c.name == name }); i >= 0 {
			return &all[i]
		}
		return nil
	}
	if cmd := byName(args[0]); cmd != nil {
		return cmd, args[1:], nil
	}
	members := group(args[0])
	if len(members) == 0 {
		var names []string
		for _, c := range all {
			names = append(names, strings.Fields(c.name)[0])
		}
		kind := "command"
		if strings.HasPrefix(args[0], "-") {
			kind = "flag"
		}
		return nil, nil, unknown(kind, args[0], names, "aiondb-ha help")
	}
	if flags, words := hoist(args[1:]); len(words) > 0 && !strings.HasPrefix(words[0], "-") {
		if cmd := byName(args[0] + " " + words[0]); cmd != nil {
			return cmd, append(flags, words[1:]...), nil
		}
		return nil, nil, unknown("command", args[0]+" "+words[0], prefixed(args[0], members), "aiondb-ha help "+args[0])
	}
	if cmd := byName(defaults()[args[0]]); cmd != nil {
		return cmd, args[1:], nil
	}
	return nil, nil, misused("%s needs one of: %s (aiondb-ha help %s)", args[0], strings.Join(members, ", "), args[0])
}

// group returns the second words of the commands that begin with name.
func group(name string) []string {
	var members []string
	for _, c := range commands() {
		if rest, ok := strings.CutPrefix(c.name, name+" "); ok {
			members = append(members, rest)
		}
	}
	return members
}

func prefixed(prefix string, words []string) []string {
	var out []string
	for _, w := range words {
		out = append(out, prefix+" "+w)
	}
	return out
}

func unknown(kind, name string, candidates []string, help string) error {
	if n := settings.Nearest(name, candidates); n != "" {
		return misused("unknown %s %q: did you mean %q? (%s)", kind, term.Safe(name), n, help)
	}
	return misused("unknown %s %q (%s)", kind, term.Safe(name), help)
}
