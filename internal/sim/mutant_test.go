package sim

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// mutant is one rule of the protocol, broken, and who sees it: a script of this
// package, the model checker (internal/explore), or both.
type mutant struct {
	rule      string // as it should be
	broken    breakage
	script    string // comes upon it soon; "": scripts are drawn from mix
	mix       Mix
	invariant string // that is seen to be broken; "": this package does not see it
	explored  string // what the model checker calls it; "" if it has no such mutant
}

const isolations = "; 2s isolate p 1s; 4s rough 0 0 700ms 1s; 5s isolate p 1s; 7s rough 0 0 700ms 1s; 8s isolate p 1s; 10s rough 0 0 700ms 1s; 11s isolate p 1s"

// mutants is the one table of what is broken to see that it is seen. A row
// without an invariant is left to the model checker, which orders what here
// Raft's timing always orders in the same way.
var mutants = []mutant{
	{rule: "the winner of a ballot waits for the lease that a voter's age tells of", explored: "age ignored",
		broken: breakage{ageIgnored: true}, invariant: "I1",
		script: "nodes=3 seed=1; 1s cut p f 3s; 1.8s cut p g 3s; 1.8s crash g 0s; 6s cut p f 3s; 6.8s cut p g 3s; 6.8s crash g 0s"},
	{rule: "the lease runs from when a message was sent", explored: "stamp at receipt",
		broken: breakage{stampAtReceipt: true}, invariant: "I1",
		script: "nodes=3 seed=1; 1s rough 0 0 250ms 1s; 2s isolate p 1s; 3.5s rough 0 0 250ms 1500ms; 5s isolate p 1s; 6.5s rough 0 0 250ms 1500ms; 8s isolate p 1s"},
	{rule: "the lease is as long as the others take it for",
		broken: breakage{leaseTooLong: true}, invariant: "I1",
		script: "nodes=3 seed=1; 1s pause p 500ms"},
	{rule: "a lease allows for clocks that are off", explored: "no allowance for drift",
		broken: breakage{noDrift: true}, invariant: "I1",
		mix: Mix{Nodes: 3, Faults: 60, Pace: 400 * time.Millisecond, Drift: DriftAllowed, Only: []string{"isolate", "pause"}}},
	{rule: "the guard is closed for good when an epoch is over", explored: "guard not closed by a ballot",
		broken: breakage{guardLate: 500 * time.Millisecond}, invariant: "I1",
		script: "nodes=3 seed=1; 3s isolate p 1s"},
	{rule: "the guard is asked before every acknowledgement", explored: "acknowledged without the guard",
		broken: breakage{ackUnguarded: true}, invariant: "I1",
		script: "nodes=3 seed=1; 1s slow f 30ms 19s; 1s slow g 30ms 19s; 2s pause p 600ms; 4s pause p 600ms; 6s pause p 600ms; 8s pause p 600ms; 10s pause p 600ms"},
	{rule: "no AppendEntries below the floor succeeds", explored: "help after a ballot",
		broken: breakage{barIgnored: true}, invariant: "I5",
		mix: Mix{Nodes: 5, Faults: 60, Pace: 200 * time.Millisecond, Only: []string{"cut", "cutone", "split", "rough", "isolate"}}},
	{rule: "TimeoutNow is taken from the leader alone",
		broken: breakage{timeoutNowFromAnyone: true}, invariant: "I7",
		script: "nodes=3 seed=1 quiet; 1s rogue f g; 2s rogue g f; 3s rogue f p"},
	{rule: "positions are compared by timeline first", explored: "positions compared by LSN first"},
	{rule: "the promise is durable before a ballot is answered", explored: "answer before the promise",
		broken: breakage{answerBeforePromise: true}, invariant: "I2",
		script: "nodes=3 seed=1; 1s slow f 20ms 9s; 1s slow g 20ms 9s; 2s isolate p 1s"},
	{rule: "the floor outlives a crash", explored: "floor forgotten in a crash",
		broken: breakage{floorForgotten: true}, invariant: "I2",
		script: "nodes=3 seed=1; 1s crash p 200ms"},
	{rule: "the database refuses WAL below the fence", explored: "stale stream taken",
		broken: breakage{fenceIgnored: true}, invariant: "I5",
		script: "nodes=3 seed=1; 1s rough 0 0 700ms 1s" + isolations},
	{rule: "a write is acknowledged when a quorum has it", explored: "write quorum too small",
		broken: breakage{ackTooSmall: true}, invariant: "I3",
		script: "nodes=3 seed=1; 1s isolate p 1s"},
	{rule: "a replica confirms what it has flushed", explored: "confirmed before it is flushed",
		broken: breakage{ackUnflushed: true}, invariant: "I3",
		script: "nodes=3 seed=1; 1s slow f 100ms 5s; 1s slow g 100ms 5s; 2s crash f 1s; 2s crash g 1s; 2s crash p 3s"},
	{rule: "a log that differs is cut back before it is continued", explored: "divergence not cut",
		broken: breakage{noCut: true}, invariant: "history",
		script: "nodes=3 seed=1; 1s isolate p 1s; 3s isolate p 1s"},
	{rule: "the position is read after the fence", explored: "position read before the fence"},
	{rule: "the fork is where the log ended after the fence", explored: "fork read before the fence"},
	{rule: "a guard that was closed never opens in that epoch again", explored: "guard opens again"},
	{rule: "a ballot is won by a quorum", explored: "ballot quorum too small"},
	{rule: "nothing is cut for an epoch below the fence", explored: "cut below the fence"},
	{rule: "a promotion is in the history before it is one", explored: "fork not committed"},
}

func (m mutant) options() Options { return Options{broken: m.broken} }

// seen returns what was seen of the mutant in a run, "" for nothing.
func (m mutant) seen(r *Result) string {
	for _, v := range r.Violations {
		if strings.HasPrefix(v, m.invariant+" ") {
			return v
		}
	}
	return ""
}

// How often a mutant is tried, since Raft and the scheduler have chances of
// their own: a script sees it every few times at worst, a drawn one every
// thirtieth. That a mutant that is there is missed has a chance below 10^-5.
const (
	scriptTries = 60
	drawnTries  = 500
)

func TestMutants(t *testing.T) {
	for _, m := range mutants {
		if m.invariant == "" {
			continue
		}
		t.Run(m.rule, func(t *testing.T) {
			t.Parallel()
			if raced && m.script == "" {
				t.Skip("takes hundreds of runs, which the race detector makes slow")
			}
			tries, s := drawnTries, Script{}
			if m.script != "" {
				var err error
				if s, err = ParseScript(m.script); err != nil {
					t.Fatal(err)
				}
				tries = scriptTries
			}
			for try := 1; try <= tries; try++ {
				if s.Seed++; m.script == "" {
					s = Generate(uint64(try), m.mix)
				}
				if v := m.seen(Run(t, s, m.options())); v != "" {
					t.Logf("seen at try %d: %s", try, v)
					return
				}
			}
			t.Errorf("not seen in %d tries; the last was SIM_SCRIPT='%s'", tries, s)
		})
	}
}

// TestScriptsHoldOtherwise runs the mutants' scripts with no rule broken: what
// they show is the mutant, not the script.
func TestScriptsHoldOtherwise(t *testing.T) {
	for _, m := range mutants {
		if m.script == "" {
			continue
		}
		s, err := ParseScript(m.script)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			s.Seed++
			if r := Run(t, s, Options{}); len(r.Violations) > 0 {
				t.Errorf("%s: %v", m.rule, r)
			}
		}
	}
}

// TestTableOfMutants: every rule is seen by somebody, every mutant of the model
// checker has its row here, and every row names one that it has.
func TestTableOfMutants(t *testing.T) {
	source, err := os.ReadFile("../explore/mutant_test.go")
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]bool{}
	for line := range strings.Lines(string(source)) {
		if quoted, _, found := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "{"), ", Rules{"); found {
			name, err := strconv.Unquote(quoted)
			if err != nil {
				t.Fatal(err)
			}
			named[name] = true
		}
	}
	if len(named) < 10 {
		t.Fatalf("only %d mutants found in the model checker's table", len(named))
	}
	for _, m := range mutants {
		if m.invariant == "" && m.explored == "" {
			t.Errorf("nobody sees it: %s", m.rule)
		}
		if m.explored != "" && !named[m.explored] {
			t.Errorf("the model checker has no mutant %q", m.explored)
		}
		delete(named, m.explored)
	}
	for name := range named {
		t.Errorf("the model checker's mutant %q has no row here", name)
	}
}
