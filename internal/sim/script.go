package sim

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aiondb/aiondb-ha/protocol"
)

// Script is a run: a cluster and the faults that befall it. Its text can be
// given back to ParseScript:
//
//	nodes=3 seed=7 rates=951,1000,1049 snapshots; 1.2s crash p 800ms; 3s cut 1 2 1s; 4s rough 20 20 50ms 2s
//
// Every fault ends by itself, so any of them can be left out of a script.
type Script struct {
	Nodes     int
	Seed      uint64 // of the delays, and of all else that is random and not Raft's
	Rates     []int  // of the nodes' clocks, in ‰
	Snapshots bool   // Raft takes them often
	Quiet     bool   // nothing in it may depose a primary
	Faults    []Fault
}

// Fault is one thing done to the cluster.
type Fault struct {
	At   time.Duration
	Kind string
	A, B Who
	N, M int
	D, E time.Duration
}

// Who names a node: by its ID, or by what it is when the time has come.
type Who string

// The nodes that are named by what they are.
const (
	Primary  Who = "p" // who may speak, as the guards have it
	Follower Who = "f" // the lowest of the others that run
	Other    Who = "g" // the highest of the others that run
	Best     Who = "0" // of a switchover: let the product choose
)

// kinds says what each kind of fault is given, in order: w is a Who, n a
// number, d a duration.
var kinds = map[string]struct{ args, what string }{
	"crash":   {"wd", "a node loses what it has not synced, and starts again after a while"},
	"stop":    {"wd", "a node is closed, and starts again after a while"},
	"pause":   {"wd", "a node stands still for a while"},
	"isolate": {"wd", "a node is cut off from all others"},
	"cut":     {"wwd", "two nodes are cut off from each other"},
	"cutone":  {"wwd", "nothing gets from the one node to the other"},
	"split":   {"wwd", "two nodes are together, and cut off from all others"},
	"slow":    {"wdd", "a sync of a node's disk takes so much longer, for a while"},
	"stick":   {"wd", "a node's disk does not answer for a while"},
	"rough":   {"nndd", "‰ of messages lost, ‰ repeated, most delay, how long"},
	"drift":   {"wnd", "a node's clock runs at this rate, in ‰, for a while: timers stay as they are"},
	"switch":  {"w", "the primary is asked to hand over"},
	"demote":  {"wd", "Raft takes a node's vote away, and gives it back after a while"},
	"remove":  {"wd", "Raft takes a node out of the cluster, and in again after a while"},
	"rogue":   {"ww", "one node tells another to stand for leader, which is not its business"},
}

// ParseScript reads what Script.String writes.
func ParseScript(text string) (Script, error) {
	var s Script
	parts := strings.Split(text, ";")
	for _, word := range strings.Fields(parts[0]) {
		name, value, _ := strings.Cut(word, "=")
		var err error
		switch name {
		case "nodes":
			s.Nodes, err = strconv.Atoi(value)
		case "seed":
			s.Seed, err = strconv.ParseUint(value, 10, 64)
		case "rates":
			for rate := range strings.SplitSeq(value, ",") {
				n, bad := strconv.Atoi(rate)
				if bad != nil || n <= 0 {
					err = fmt.Errorf("rate %q", rate)
				}
				s.Rates = append(s.Rates, n)
			}
		case "snapshots":
			s.Snapshots = true
		case "quiet":
			s.Quiet = true
		default:
			err = fmt.Errorf("unknown")
		}
		if err != nil {
			return s, fmt.Errorf("script: %q: %w", word, err)
		}
	}
	if s.Nodes < 1 || s.Nodes > 9 {
		return s, fmt.Errorf("script: %d nodes, want 1 to 9", s.Nodes)
	}
	for _, part := range parts[1:] {
		if strings.TrimSpace(part) == "" {
			continue
		}
		f, err := s.parseFault(strings.Fields(part))
		if err != nil {
			return s, fmt.Errorf("script: %q: %w", strings.TrimSpace(part), err)
		}
		s.Faults = append(s.Faults, f)
	}
	slices.SortStableFunc(s.Faults, func(a, b Fault) int { return int(a.At - b.At) })
	return s, nil
}

func (s Script) parseFault(words []string) (f Fault, err error) {
	if len(words) < 2 {
		return f, fmt.Errorf("want a time and a fault")
	}
	if f.At, err = time.ParseDuration(words[0]); err != nil {
		return f, err
	}
	f.Kind = words[1]
	kind, there := kinds[f.Kind]
	if args := words[2:]; !there || len(args) != len(kind.args) {
		return f, fmt.Errorf("no such fault, or not what it is given")
	}
	for i, arg := range words[2:] {
		repeated := strings.Count(kind.args[:i], kind.args[i:i+1]) > 0
		switch kind.args[i] {
		case 'w':
			if id, bad := strconv.Atoi(arg); arg != string(Primary) && arg != string(Follower) && arg != string(Other) && (bad != nil || id < 0 || id > s.Nodes) {
				return f, fmt.Errorf("there is no node %q", arg)
			}
			if repeated {
				f.B = Who(arg)
			} else {
				f.A = Who(arg)
			}
		case 'n':
			n, bad := strconv.Atoi(arg)
			if bad != nil || n < 0 {
				return f, fmt.Errorf("%q is no number", arg)
			}
			if repeated {
				f.M = n
			} else {
				f.N = n
			}
		case 'd':
			d, bad := time.ParseDuration(arg)
			if bad != nil || d < 0 {
				return f, fmt.Errorf("%q is no duration", arg)
			}
			if repeated {
				f.E = d
			} else {
				f.D = d
			}
		}
	}
	return f, nil
}

// String writes a fault as ParseScript reads it.
func (f Fault) String() string {
	text := fmt.Sprintf("%v %s", f.At, f.Kind)
	seen := map[rune]bool{}
	for _, arg := range kinds[f.Kind].args {
		switch {
		case arg == 'w' && !seen[arg]:
			text += " " + string(f.A)
		case arg == 'w':
			text += " " + string(f.B)
		case arg == 'n' && !seen[arg]:
			text += fmt.Sprintf(" %d", f.N)
		case arg == 'n':
			text += fmt.Sprintf(" %d", f.M)
		case !seen[arg]:
			text += " " + f.D.String()
		default:
			text += " " + f.E.String()
		}
		seen[arg] = true
	}
	return text
}

// String writes the script on one line.
func (s Script) String() string {
	text := fmt.Sprintf("nodes=%d seed=%d", s.Nodes, s.Seed)
	if len(s.Rates) > 0 {
		rates := make([]string, len(s.Rates))
		for i, r := range s.Rates {
			rates[i] = strconv.Itoa(r)
		}
		text += " rates=" + strings.Join(rates, ",")
	}
	if s.Snapshots {
		text += " snapshots"
	}
	if s.Quiet {
		text += " quiet"
	}
	for _, f := range s.Faults {
		text += "; " + f.String()
	}
	return text
}

// End returns when the last fault begins.
func (s Script) End() time.Duration {
	if len(s.Faults) == 0 {
		return 0
	}
	return s.Faults[len(s.Faults)-1].At
}

func (w Who) id() protocol.NodeID {
	n, err := strconv.Atoi(string(w))
	if err != nil {
		return protocol.NoNode
	}
	return protocol.NodeID(n)
}
