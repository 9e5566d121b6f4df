package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/aiondb/aiondb-ha/fsm/command"
)

// TestEverything makes every measurement, as small as can be, and looks at what
// the stores did, not at how fast.
func TestEverything(t *testing.T) {
	b := &bench{
		scale: scale{name: "test", rounds: 2, appends: 2, reads: 20, preload: 200, small: 300, large: 2000,
			opens: 1, cuts: 1, batches: 40, bulk: []string{"opaque", "KvWrite"}},
		dir: t.TempDir(), progress: io.Discard,
	}
	if err := b.run(); err != nil {
		t.Fatal(err)
	}
	for _, r := range b.rows {
		if strings.Contains(r.Name, "DeleteRange, ") {
			continue // there may be too few in so short a run
		}
		for _, k := range kinds {
			if c := r.Cells[k.name]; c.Missing != "" {
				t.Errorf("%s, %s: %s has nothing: %s", r.Group, r.Name, k.name, c.Missing)
			} else if c.N == 0 {
				t.Errorf("%s, %s: %s was not measured", r.Group, r.Name, k.name)
			}
		}
	}
	done := b.report()
	var text, markdown, js bytes.Buffer
	if err := errors.Join(done.print(&text, false, false), done.print(&markdown, false, true), done.print(&js, true, false)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"StoreLogs beside 4 readers", "a vote in a new term", "GetLog, p99.9", "goals:"} {
		if !strings.Contains(text.String(), want) || !strings.Contains(markdown.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, text.String())
		}
	}
	file := filepath.Join(t.TempDir(), "run.json")
	var again bytes.Buffer
	if err := errors.Join(os.WriteFile(file, js.Bytes(), 0o600), execute([]string{"-from", file}, &again, io.Discard)); err != nil {
		t.Fatal(err)
	}
	if again.String() != text.String() {
		t.Errorf("read back from JSON:\n%s\nwant:\n%s", again.String(), text.String())
	}
}

func TestPayloads(t *testing.T) {
	for _, size := range []int{128, 512, 1024} {
		for _, k := range payloadKinds {
			p := k.make(size)
			buf := make([]byte, size)
			for _, index := range []uint64{1, 2, 15, 16, 17, 999, 1_000_000, 12_345_678} {
				p.fill(buf, index)
				if !p.is(buf, index) || p.is(buf, index+1) || p.is(buf, index+variants) || p.is(buf[1:], index) {
					t.Fatalf("%s, %d bytes: the payload of %d is not known again", p.name(), size, index)
				}
				damaged := bytes.Clone(buf)
				damaged[size-3] ^= 1
				if p.is(damaged, index) {
					t.Fatalf("%s: a damaged payload passes", p.name())
				}
				if command.IsCanonical(buf) != (k.name == "KvWrite") {
					t.Fatalf("%s, %d bytes: canonical: %v", p.name(), size, command.IsCanonical(buf))
				}
			}
		}
	}
}

// TestAlternate checks that everybody gets the same turns, and that who fails
// is out while the others go on.
func TestAlternate(t *testing.T) {
	var turns []string
	all := alternate(3, []contender{
		{"a", func(r int) (float64, error) { turns = append(turns, "a"); return float64(r), nil }},
		{"b", func(r int) (float64, error) {
			if r == 2 {
				return 0, errors.New("no more")
			}
			return 2 * float64(r), nil
		}},
	})
	if len(turns) != 4 || !slices.Equal(all[0].values, []float64{1, 2, 3}) {
		t.Errorf("a had %d turns, values %v", len(turns), all[0].values)
	}
	if all[1].err == nil || !slices.Equal(all[1].values, []float64{2}) {
		t.Errorf("b: values %v, error %v", all[1].values, all[1].err)
	}
	if p := pairs(all[0], all[1]); !slices.Equal(p, []float64{0.5}) {
		t.Errorf("pairs: %v", p)
	}
}

func TestQuantile(t *testing.T) {
	for _, test := range []struct {
		values []float64
		q      float64
		want   float64
	}{{nil, 0.5, 0}, {[]float64{7}, 0.99, 7}, {[]float64{1, 2}, 0.5, 1.5}, {[]float64{1, 2, 3, 4, 5}, 0.25, 2}, {[]float64{1, 2, 3}, 1, 3}} {
		if got := quantile(test.values, test.q); got != test.want {
			t.Errorf("quantile of %v at %v: %v, want %v", test.values, test.q, got, test.want)
		}
	}
}

func TestGoals(t *testing.T) {
	row := makeRow("", "", nanoseconds, []series{
		{name: nameJSONL, values: []float64{10, 12}}, {name: nameWAL, values: []float64{10, 10}},
		{name: nameBolt, err: errors.New("cannot")},
	}, atMost(1.2, nameWAL), atMost(1, nameWAL), atMost(9, nameBolt), atMost(11, ""))
	met := make([]bool, len(row.Goals))
	for i, g := range row.Goals {
		met[i] = g.Met
	}
	if !slices.Equal(met, []bool{true, false, false, true}) {
		t.Errorf("met: %v", met)
	}
}

func TestFlags(t *testing.T) {
	var out bytes.Buffer
	if err := execute([]string{"-list"}, &out, io.Discard); err != nil || !strings.Contains(out.String(), "stable/vote\n") {
		t.Errorf("-list: %v\n%s", err, out.String())
	}
	for _, args := range [][]string{{"-quick", "-full"}, {"-only", "("}, {"-only", "no such thing"}, {"-dir", "/does/not/exist"}} {
		if err := execute(args, io.Discard, io.Discard); err == nil {
			t.Errorf("%q: no error", args)
		}
	}
	b := &bench{only: regexp.MustCompile("vote")}
	if !b.wants("stable/vote") || b.wants("stable/set") {
		t.Error("-only does not choose")
	}
}
