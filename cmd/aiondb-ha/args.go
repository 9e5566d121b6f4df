package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"github.com/aiondb/aiondb-ha/internal/httpapi"
	"github.com/aiondb/aiondb-ha/internal/settings"
)

// durationFlag is a duration and whether it was given.
type durationFlag struct {
	d   time.Duration
	set bool
}

func (f *durationFlag) String() string { return f.d.String() }

func (f *durationFlag) Set(text string) error {
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 || d > httpapi.MaxTimeout {
		return fmt.Errorf("want a duration such as 500ms or 2s, at most %.0fs", httpapi.MaxTimeout.Seconds())
	}
	*f = durationFlag{d, true}
	return nil
}

// or returns the duration given, or the other.
func (f durationFlag) or(other time.Duration) time.Duration {
	if f.set {
		return f.d
	}
	return other
}

// flagSet returns the flags of cmd, and where they go.
func flagSet(cmd *command) (*flag.FlagSet, *input, runner) {
	fs := flag.NewFlagSet(cmd.name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	in := &input{}
	run := cmd.setup(fs)
	if cmd.data {
		fs.BoolVar(&in.json, "json", false, "print JSON")
		fs.Func("o", "print in this `FORMAT`: json", func(text string) error {
			if in.json = text == "json"; !in.json {
				return errors.New("the only format is json")
			}
			return nil
		})
	}
	if cmd.client {
		fs.StringVar(&in.api, "api", "", "the node to ask: `URL` of its API (default: "+apiEnv+", or "+defaultAPI+")")
		fs.StringVar(&in.access.tokenFile, "api-token-file", "", "`FILE` with the API token (default: "+apiTokenEnv+", or "+apiTokenEnv+fileSuffix+")")
		fs.StringVar(&in.access.token, "api-token", "", "the API token as `TEXT`; others can read it, prefer the file")
		fs.StringVar(&in.access.ca, "api-ca", "", "`FILE` of the certificates to trust the API by (default: "+apiCAEnv+")")
		fs.Var(&in.timeout, "timeout", fmt.Sprintf("`DURATION` the node may take, such as 2s (at most %.0fs)", httpapi.MaxTimeout.Seconds()))
	}
	return fs, in, run
}

// parse reads flags and positional arguments in any order; -- ends the flags.
func parse(cmd *command, args []string) (*input, runner, error) {
	fs, in, run := flagSet(cmd)
	for len(args) > 0 {
		if err := fs.Parse(args); err != nil {
			return nil, nil, flagMistake(fs, err)
		}
		rest := fs.Args()
		read := args[:len(args)-len(rest)]
		if len(rest) == 0 {
			break
		}
		if len(read) > 0 && read[len(read)-1] == "--" {
			in.args = append(in.args, rest...)
			break
		}
		in.args = append(in.args, rest[0])
		args = rest[1:]
	}
	switch n := len(in.args); {
	case n > cmd.max && cmd.max == 0:
		return nil, nil, misused("%s takes no argument, but %q is there", cmd.name, in.args[0])
	case n < cmd.min || n > cmd.max:
		return nil, nil, misused("%s wants %s", cmd.name, cmd.args)
	}
	return in, run, nil
}

// badValue is how package flag words a value it could not take; it has no error
// type for that.
var badValue = regexp.MustCompile(`^invalid (?:boolean )?value (".*") for (?:flag )?-([^ :]+): (.*)$`)

// flagMistake says what package flag says in our way, with the nearest flag for
// one that does not exist.
func flagMistake(fs *flag.FlagSet, err error) error {
	if errors.Is(err, flag.ErrHelp) {
		return err
	}
	if name, ok := strings.CutPrefix(err.Error(), "flag provided but not defined: "); ok {
		var names []string
		fs.VisitAll(func(f *flag.Flag) { names = append(names, dashed(f.Name)) })
		name = dashed(strings.TrimLeft(name, "-"))
		if n := settings.Nearest(name, names); n != "" {
			return misused("unknown flag %s: did you mean %s?", name, n)
		}
		return misused("unknown flag %s", name)
	}
	if name, ok := strings.CutPrefix(err.Error(), "flag needs an argument: "); ok {
		return misused("%s needs a value", dashed(strings.TrimLeft(name, "-")))
	}
	if m := badValue.FindStringSubmatch(err.Error()); m != nil {
		why := m[3]
		if why == "parse error" {
			why = "this is no value for it"
		}
		return misused("%s %s: %s", dashed(m[2]), m[1], why)
	}
	return misused("%s", strings.ReplaceAll(err.Error(), "\n", " "))
}

// hoist takes the flags that many commands have from the front of args, where
// people also put them.
func hoist(args []string) (flags, rest []string) {
	for len(args) > 0 {
		name, _, hasValue := strings.Cut(strings.TrimPrefix(args[0], "-"), "=")
		switch name = strings.TrimPrefix(name, "-"); {
		case !strings.HasPrefix(args[0], "-"):
			return flags, args
		case name == "json":
			flags, args = append(flags, args[0]), args[1:]
		case name == "o" || name == "api" || name == "timeout" || name == "api-token-file" || name == "api-token" || name == "api-ca":
			n := min(2, len(args))
			if hasValue {
				n = 1
			}
			flags, args = append(flags, args[:n]...), args[n:]
		default:
			return flags, args
		}
	}
	return flags, args
}

// dashed writes a flag's name as people type it.
func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}
