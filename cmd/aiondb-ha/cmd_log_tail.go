package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"

	"github.com/aiondb/aiondb-ha/internal/term"
	"github.com/aiondb/aiondb-ha/jsonlstore"
)

// defaultTail is how many entries log tail begins with.
const defaultTail = 10

// tailNotice is what log tail prints of an event that is no entry, as JSON.
type tailNotice struct {
	Event string `json:"event"`
	First uint64 `json:"first"`
	Last  uint64 `json:"last,omitempty"`
}

func setupLogTail(fs *flag.FlagSet) runner {
	last := fs.Int("n", defaultTail, "begin with the last `N` entries (default: 10)")
	follow := fs.Bool("f", false, "go on with what happens, until Ctrl-C")
	return func(a *app, in *input) error {
		if *last < 0 {
			return misused("-n %d: want the number of entries to begin with", *last)
		}
		t := tailing{a: a, in: in, out: bufio.NewWriter(a.stdout), style: a.style()}
		for e, err := range jsonlstore.Tail(a.ctx, in.args[0], jsonlstore.TailOptions{Last: *last, Follow: *follow}) {
			if err == nil {
				err = t.show(e)
			}
			if err == nil && *follow {
				err = t.out.Flush()
			}
			if err != nil {
				return err
			}
		}
		if err := t.out.Flush(); err != nil {
			return err
		}
		if t.damaged > 0 && !*follow {
			return fmt.Errorf("places of damage: %d", t.damaged)
		}
		return nil
	}
}

// tailing prints what Tail tells.
type tailing struct {
	a       *app
	in      *input
	out     *bufio.Writer
	style   term.Style
	damaged int
}

func (t *tailing) show(e jsonlstore.TailEvent) error {
	switch e.Kind {
	case jsonlstore.TailEntry:
		return writeEntry(t.out, t.in, e.Entry, t.style)
	case jsonlstore.TailDamage:
		t.damaged++
		if err := t.out.Flush(); err != nil { // so that the damage is told where it is
			return err
		}
		fmt.Fprintln(t.a.stderr, "aiondb-ha: "+term.Safe(e.Damage.Error()))
		return nil
	case jsonlstore.TailCut:
		return t.notice(tailNotice{"cut", e.First, e.Last}, fmt.Sprintf("the end of the log was cut off: %s %s gone", span("entry", "entries", e.First, e.Last), isAre(e.First, e.Last)))
	case jsonlstore.TailFrontCut:
		return t.notice(tailNotice{"front_cut", e.First, 0}, fmt.Sprintf("the front of the log was cut off: it begins with index %d", e.First))
	}
	return nil
}

func (t *tailing) notice(n tailNotice, text string) error {
	if !t.in.json {
		_, err := fmt.Fprintln(t.out, t.style.Yellow("-- "+text))
		return err
	}
	line, err := json.Marshal(n)
	if err == nil {
		_, err = t.out.Write(append(line, '\n'))
	}
	return err
}

// span writes a range of numbers: "line 3", "lines 3 to 5".
func span[N ~int | ~uint64](one, many string, first, last N) string {
	if first == last {
		return fmt.Sprintf("%s %d", one, first)
	}
	return fmt.Sprintf("%s %d to %d", many, first, last)
}

func isAre(first, last uint64) string {
	if first == last {
		return "is"
	}
	return "are"
}
