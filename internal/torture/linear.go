package torture

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/aiondb/aiondb-ha/protocol"
)

// OpKind is what a client asked for.
type OpKind uint8

// The kinds.
const (
	OpGet     OpKind = iota // Seen is the value found; "" if there is none
	OpPut                   // Value replaces whatever is there
	OpCompare               // Value replaces Old, or nothing happens
)

func (k OpKind) String() string { return [...]string{"get", "put", "compare"}[k] }

// Outcome is what became of a request.
type Outcome uint8

// The outcomes.
const (
	Unknown Outcome = iota // it may have been done, or may still be
	OK                     // done: Seen is what it saw
	Refused                // certainly not done
	Differs                // a compare that found another value than Old
)

func (o Outcome) String() string { return [...]string{"unknown", "ok", "refused", "differs"}[o] }

// Op is one request of a client to a register, with its interval. Values are
// unique: no two requests write the same.
type Op struct {
	Client  int             `json:"client"`
	Node    protocol.NodeID `json:"node"` // that was asked
	Key     string          `json:"key"`
	Kind    OpKind          `json:"kind"`
	Old     string          `json:"old,omitempty"`
	Value   string          `json:"value,omitempty"`
	Seen    string          `json:"seen,omitempty"`
	Epoch   protocol.Epoch  `json:"epoch,omitempty"`
	LSN     protocol.LSN    `json:"lsn,omitempty"`
	Rev     uint64          `json:"rev,omitempty"` // of KV: where Seen or Value was written
	Outcome Outcome         `json:"outcome"`
	Code    string          `json:"code,omitempty"` // of a refusal, or why it is unknown
	Start   time.Duration   `json:"start_ns"`
	End     time.Duration   `json:"end_ns"`
}

func (o Op) String() string {
	return fmt.Sprintf("[%v %v] client %d node %d %s %s old=%q value=%q seen=%q rev=%d epoch=%d %s",
		o.Start, o.End, o.Client, o.Node, o.Kind, o.Key, o.Old, o.Value, o.Seen, o.Rev, o.Epoch, o.Outcome)
}

// Linearity is what a check of histories came to.
type Linearity struct {
	Ops     int      // looked at
	Keys    int      // with at least one
	Illegal []string // keys whose history no order explains
	Open    []string // keys whose check did not come to an end in time
	Worst   error    // describes the first illegal one
}

// OK reports whether every history is proven to be linearizable.
func (l Linearity) OK() bool { return len(l.Illegal) == 0 && len(l.Open) == 0 }

// register is the model: one value, "" at first.
var register = porcupine.Model{
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		value, op, outcome := state.(string), input.(*Op), output.(Outcome)
		switch op.Kind {
		case OpGet:
			return op.Seen == value, value
		case OpPut:
			return true, op.Value
		case OpCompare:
			switch {
			case outcome == Differs:
				return value != op.Old, value
			case value == op.Old:
				return true, op.Value
			default: // an unknown one may have found another value; one that is OK has not
				return outcome == Unknown, value
			}
		}
		return false, value
	},
}

// CheckLinearizable holds each key's history against a register. limit bounds
// the time for each key: the check is exponential at worst. Requests that were
// refused, and reads without an answer, say nothing; a write of unknown outcome
// may take effect at any time after its start, or never.
func CheckLinearizable(ops []Op, limit time.Duration) Linearity {
	keys := map[string][]*Op{}
	var order []string
	for i := range ops {
		o := &ops[i]
		if keys[o.Key] == nil {
			order = append(order, o.Key)
		}
		keys[o.Key] = append(keys[o.Key], o)
	}
	slices.Sort(order)
	l := Linearity{Ops: len(ops), Keys: len(order)}
	results := make([]porcupine.CheckResult, len(order))
	errs := make([]error, len(order))
	var wg sync.WaitGroup
	next := make(chan int)
	for range max(1, runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			for i := range next {
				results[i], errs[i] = checkKey(keys[order[i]], limit)
			}
		})
	}
	for i := range order {
		next <- i
	}
	close(next)
	wg.Wait()
	for i, key := range order {
		switch results[i] {
		case porcupine.Ok:
		case porcupine.Illegal:
			l.Illegal = append(l.Illegal, key)
			if l.Worst == nil {
				l.Worst = errs[i]
			}
		case porcupine.Unknown:
			l.Open = append(l.Open, key)
		}
	}
	return l
}

// checkKey checks the history of one key.
func checkKey(ops []*Op, limit time.Duration) (porcupine.CheckResult, error) {
	if err := revisions(ops); err != nil {
		return porcupine.Illegal, err
	}
	seen := map[string]bool{}
	var lastDiffers time.Duration
	for _, o := range ops {
		if o.Outcome == OK && o.Kind == OpGet {
			seen[o.Seen] = true
		}
		if o.Kind == OpCompare && (o.Outcome == OK || o.Outcome == Unknown) {
			seen[o.Old] = true
		}
		if o.Outcome == Differs {
			lastDiffers = max(lastDiffers, o.End)
		}
	}
	var history []porcupine.Operation
	for _, o := range ops {
		switch {
		case o.Outcome == Refused, o.Outcome == Unknown && o.Kind == OpGet:
			continue
		case o.Outcome == Unknown && !seen[o.Value] && o.Start > lastDiffers:
			// Nobody saw what it wrote, and nobody found something unexpected
			// instead of it: every order with it explains the rest without it.
			continue
		}
		end := int64(o.End)
		if o.Outcome == Unknown {
			end = math.MaxInt64
		}
		history = append(history, porcupine.Operation{ClientId: o.Client, Input: o, Call: int64(o.Start), Output: o.Outcome, Return: end})
	}
	result, info := porcupine.CheckOperationsVerbose(register, history, limit)
	if result != porcupine.Illegal {
		return result, nil
	}
	return result, explain(ops, history, info)
}

// explain names the request at which the longest explicable order ends.
func explain(ops []*Op, history []porcupine.Operation, info porcupine.LinearizationInfo) error {
	longest := 0
	var stuck *Op
	for _, partition := range info.PartialLinearizationsOperations() {
		for _, order := range partition {
			if len(order) < longest {
				continue
			}
			longest = len(order)
			in := map[*Op]bool{}
			for _, o := range order {
				in[o.Input.(*Op)] = true
			}
			stuck = nil
			for _, o := range history {
				if op := o.Input.(*Op); !in[op] && op.Outcome != Unknown && (stuck == nil || op.End < stuck.End) {
					stuck = op
				}
			}
		}
	}
	err := fmt.Errorf("key %s: no order of its %d requests explains them", ops[0].Key, len(ops))
	if stuck != nil {
		err = fmt.Errorf("%w; the first that fits nowhere: %s", err, stuck)
	}
	return err
}

// errRevision says that a revision stands for two values, or a value for two.
var errRevision = errors.New("a revision is not one write")

// revisions checks that a value and its revision belong together.
func revisions(ops []*Op) error {
	value, rev := map[uint64]string{}, map[string]uint64{}
	for _, o := range ops {
		if o.Outcome != OK || o.Rev == 0 {
			continue
		}
		v := o.Value
		if o.Kind == OpGet {
			v = o.Seen
		}
		if was, ok := value[o.Rev]; ok && was != v {
			return fmt.Errorf("key %s: %w: %d is %q and %q: %s", o.Key, errRevision, o.Rev, was, v, o)
		}
		if was, ok := rev[v]; ok && was != o.Rev {
			return fmt.Errorf("key %s: %w: %q has %d and %d: %s", o.Key, errRevision, v, was, o.Rev, o)
		}
		value[o.Rev], rev[v] = v, o.Rev
	}
	return nil
}
