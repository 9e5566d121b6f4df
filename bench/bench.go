package main

import (
	"fmt"
	"io"
	"os"
	"regexp"
	"time"
)

// scale is how much is measured.
type scale struct {
	name    string
	rounds  int // of paired measurements
	appends int // StoreLogs calls of one entry per round; fewer of many
	reads   int // GetLog calls per round
	preload int // entries in a log before something is measured on it
	small   int // entries of the small log
	large   int // entries of the large log
	opens   int // rounds of opening
	cuts    int // rounds of cutting the front, each on a fresh copy
	batches int // appends per round of the mixed load
	bulk    []string
}

var scales = map[string]scale{
	"quick": {name: "quick", rounds: 21, appends: 32, reads: 1000, preload: 2000, small: 10_000, large: 50_000,
		opens: 5, cuts: 3, batches: 100, bulk: []string{"opaque"}},
	"standard": {name: "standard", rounds: 25, appends: 32, reads: 1000, preload: 5000, small: 10_000, large: 200_000,
		opens: 7, cuts: 3, batches: 200, bulk: []string{"opaque", "KvWrite"}},
	"full": {name: "full", rounds: 31, appends: 40, reads: 2000, preload: 10_000, small: 10_000, large: 1_000_000,
		opens: 5, cuts: 3, batches: 200, bulk: []string{"opaque", "KvWrite"}},
}

// bench is one run.
type bench struct {
	scale    scale
	dir      string // its own, removed by the caller
	only     *regexp.Regexp
	listing  bool // name the measurements, make none
	names    []string
	progress io.Writer
	rows     []row
}

// wants tells whether a measurement is asked for.
func (b *bench) wants(name string) bool {
	b.names = append(b.names, name)
	return !b.listing && (b.only == nil || b.only.MatchString(name))
}

func (b *bench) add(r row) { b.rows = append(b.rows, r) }

// run makes all the measurements.
func (b *bench) run() error {
	for _, part := range []func(*bench) error{storeLogs, getLog, stableStore, largeLogs, mixedLoad} {
		if err := part(b); err != nil {
			return err
		}
	}
	return nil
}

// step runs one measurement in a directory of its own and removes it.
func (b *bench) step(name string, do func(dir string) error) error {
	if !b.wants(name) {
		return nil
	}
	return b.inDir(name, do)
}

func (b *bench) inDir(name string, do func(dir string) error) error {
	dir, err := os.MkdirTemp(b.dir, "")
	if err != nil {
		return err
	}
	start := time.Now()
	if err := do(dir); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	fmt.Fprintf(b.progress, "%-48s %6.1f s\n", name, time.Since(start).Seconds())
	return os.RemoveAll(dir)
}

// payloadKinds are the two makes of payloads.
var payloadKinds = []struct {
	name string
	make func(size int) payloads
}{
	{"opaque", func(size int) payloads { return newOpaque(size) }},
	{"KvWrite", func(size int) payloads { return newCommands(size) }},
}
