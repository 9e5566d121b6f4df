package storetest

import (
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// Deviation is a check that a store is known to fail.
type Deviation struct {
	Check  string // its name, as in the output of go test
	Reason string // what the store does instead, in a sentence

	// Sometimes says that the check fails in some runs and passes in others, as
	// those of concurrency may.
	Sometimes bool
}

// byCheck arranges deviations by the names of their checks.
func byCheck(t testing.TB, known []Deviation) map[string]Deviation {
	m := make(map[string]Deviation)
	for _, d := range known {
		if _, twice := m[d.Check]; twice || d.Reason == "" {
			t.Errorf("the deviation %q is listed twice or without a reason", d.Check)
		}
		m[d.Check] = d
	}
	return m
}

func noneLeft(t testing.TB, deviations map[string]Deviation) {
	for name := range deviations {
		t.Errorf("a deviation names the check %q, which there is not", name)
	}
}

// confirm runs a check that should fail.
func (d Deviation) confirm(t *testing.T, run func(testing.TB)) {
	r := &recorder{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				r.record(fmt.Sprintf("panic: %v", p))
			}
		}()
		run(r)
	}()
	<-done
	if !r.Failed() && !d.Sometimes {
		t.Errorf("the store passes this check and should be taken off the list of those that deviate: %q", d.Reason)
	}
	t.Logf("known to deviate: %s\n%s", d.Reason, strings.Join(r.failures, "\n"))
}

// recorder takes the failures of a check instead of the test.
type recorder struct {
	testing.TB

	mu       sync.Mutex
	failures []string
}

func (r *recorder) record(s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = append(r.failures, s)
}

func (r *recorder) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.failures) > 0
}

func (r *recorder) Fail()                     { r.record("failed") }
func (r *recorder) Error(args ...any)         { r.record(fmt.Sprint(args...)) }
func (r *recorder) Errorf(f string, a ...any) { r.record(fmt.Sprintf(f, a...)) }

func (r *recorder) FailNow() {
	r.Fail()
	runtime.Goexit()
}

func (r *recorder) Fatal(args ...any) {
	r.Error(args...)
	runtime.Goexit()
}

func (r *recorder) Fatalf(f string, a ...any) {
	r.Errorf(f, a...)
	runtime.Goexit()
}
