package conformance

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/aiondb/aiondb-ha/logstore"
	"github.com/aiondb/aiondb-ha/logstore/storetest"
)

func TestConformance(t *testing.T) {
	for _, s := range Stores() {
		t.Run(s.Name, func(t *testing.T) {
			storetest.Run(t, func(t testing.TB) logstore.Store { return s.open(t, t.TempDir()) }, s.Run...)
			if s.CannotReopen == "" {
				t.Run("reopened", func(t *testing.T) { storetest.RunPersistent(t, s.open, s.Persistent...) })
			}
		})
	}
}

var write = flag.Bool("write", false, "write docs/stores.md instead of comparing it")

const pagePath = "../../docs/stores.md"

// TestPage compares docs/stores.md with the lists, or writes it.
func TestPage(t *testing.T) {
	want := page()
	if *write {
		if err := os.WriteFile(pagePath, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(pagePath)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("docs/stores.md is not what the lists say: cd bench && go test ./conformance -run TestPage -write")
	}
}

func page() []byte {
	var b bytes.Buffer
	b.WriteString(pageIntro)
	for _, s := range Stores() {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n", s.Name, s.Note)
		if s.CannotReopen != "" {
			fmt.Fprintf(&b, "Closing and opening it again is not tried: %s.\n", s.CannotReopen)
		}
		if len(s.Run)+len(s.Persistent) == 0 {
			b.WriteString("It passes every check.\n")
			continue
		}
		b.WriteString("\n| check | what the store does instead |\n| --- | --- |\n")
		for _, part := range []struct {
			of   string
			list []storetest.Deviation
		}{{"", s.Run}, {", reopened", s.Persistent}} {
			for _, d := range part.list {
				sometimes := ""
				if d.Sometimes {
					sometimes = " (in some runs)"
				}
				fmt.Fprintf(&b, "| %s%s | %s%s |\n", d.Check, part.of, strings.ReplaceAll(d.Reason, "|", `\|`), sometimes)
			}
		}
	}
	return b.Bytes()
}

const pageIntro = `# What each store does, and does not

Written by ` + "`cd bench && go test ./conformance -run TestPage -write`" + `; the test fails while this page says anything else than the lists it is
made from. The checks are those of [logstore/storetest](../logstore/storetest/storetest.go), which hold a store to what ` + "`logstore.Store`" + `
says. They are run on every store here. One that is listed as failing is run all the same and has to fail, so that no
line outlives what it tells of.

To run the checks on a store of your own: ` + "`storetest.Run(t, open)`, `storetest.RunPersistent(t, openDir)`" + `, with the deviations that you
know of behind; and, if it can be put on a disk of the test's own making, ` + "`storetest.RunCrash(t, newMachine)`" + `, which cuts the power
at many places and looks at what is left. Of the stores here that is jsonlstore alone: the others open files of the system. ` + "`logstore.Checked`" + ` makes a ` + "`logstore.Store`" + ` of anything that has Raft's two interfaces and Close.
`
