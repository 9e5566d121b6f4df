package failover

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aiondb/aiondb-ha/health"
	"github.com/aiondb/aiondb-ha/protocol"
)

var update = flag.Bool("update", false, "write the answers of the machine into the transcripts")

// TestTranscripts plays the files of testdata/transcripts: what happens stands
// at the margin, what the machine answers is indented below it. They are the
// specification of the Orchestrator by example; README.txt there says how to
// read them. After a wanted change: go test ./failover -run Transcripts -update
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/transcripts/*.script")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".script"), func(t *testing.T) {
			was, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			is := play(t, was)
			if *update {
				if err := os.WriteFile(file, is, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if !bytes.Equal(was, is) {
				t.Errorf("%s: the machine answers otherwise:\n%s", file, firstDifference(was, is))
			}
		})
	}
}

func firstDifference(was, is []byte) string {
	old, now := strings.Split(string(was), "\n"), strings.Split(string(is), "\n")
	for i := range max(len(old), len(now)) {
		a, b := "(end)", "(end)"
		if i < len(old) {
			a = old[i]
		}
		if i < len(now) {
			b = now[i]
		}
		if a != b {
			return fmt.Sprintf("line %d\n  was %s\n  is  %s", i+1, a, b)
		}
	}
	return ""
}

const indent = "    "

type player struct {
	t     *testing.T
	m     *Orchestrator
	start time.Time
	now   time.Time
	out   bytes.Buffer
	last  string // standing
}

// play gives the inputs of a script to a new machine and returns the script
// with the machine's answers in it.
func play(t *testing.T, script []byte) []byte {
	p := &player{t: t, start: time.Date(2000, 1, 1, 12, 0, 0, 0, time.UTC)}
	p.now = p.start
	lines := bufio.NewScanner(bytes.NewReader(script))
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, indent) {
			continue // an earlier answer
		}
		fmt.Fprintln(&p.out, line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		p.line(strings.Fields(line))
	}
	return p.out.Bytes()
}

func (p *player) line(words []string) {
	if after, is := strings.CutPrefix(words[0], "+"); is {
		d, err := time.ParseDuration(after)
		if err != nil {
			p.t.Fatal(err)
		}
		p.now = p.now.Add(d)
		words = words[1:]
	}
	args := arguments{p.t, words}
	if words[0] == "node" {
		p.m = NewOrchestrator(args.node("id"), args.epoch("floor"), Timing{BallotTimeout: 200 * time.Millisecond,
			Grace: 20 * time.Millisecond, StepDownTimeout: time.Second, BackoffMin: 50 * time.Millisecond,
			BackoffMax: 400 * time.Millisecond, CoolDown: 2 * time.Second, DeferMemory: 5 * time.Second, Lease: 100 * time.Millisecond})
		p.standing(Output{})
		return
	}
	out := p.m.Step(p.now, p.input(args))
	for _, action := range out.Actions {
		p.action(action)
	}
	p.standing(out)
}

func (p *player) input(a arguments) Input {
	attempt := p.m.await
	if a.has("attempt") {
		attempt = a.number("attempt")
	}
	switch what := a.words[0]; what {
	case "leadership-gained":
		return LeadershipChanged{Leading: true, Term: a.number("term")}
	case "leadership-lost":
		return LeadershipChanged{}
	case "epoch-begun":
		in := EpochBegun{Attempt: attempt, Epoch: a.epoch("epoch"), Rules: a.rules()}
		if a.has("last") {
			in.Last.Node, in.Last.Epoch = a.pair("last")
		}
		if a.has("alive") {
			in.Alive = a.nodes("alive")
		}
		return in
	case "rules":
		return RulesChanged{Rules: a.rules()}
	case "prepared":
		in := Prepared{Attempt: attempt, Position: a.position("position"), Voters: a.nodes("voters"), Alive: a.nodes("alive"),
			Address: "db-" + p.m.local.String()}
		if a.has("earlier") {
			in.Earlier, in.Age = a.node("earlier"), a.duration("age")
		}
		if a.has("behind") {
			in.Behind, in.MaxBehind, in.Successor = a.number("behind"), a.number("allowed"), a.node("successor")
		}
		return in
	case "granted", "better", "stale", "unavailable":
		answer := protocol.BallotAnswer{Epoch: p.m.epoch, VoterID: a.node("by")}
		switch what {
		case "granted":
			answer.Position = a.position("position")
		case "better":
			answer.Refusal, answer.Position = protocol.BallotBetter, a.position("position")
		case "stale":
			answer.Refusal, answer.Floor = protocol.BallotStaleEpoch, a.epoch("floor")
		default:
			answer.Refusal = protocol.BallotUnavailable
		}
		if a.has("age") {
			answer.AgeUS = uint64(a.duration("age").Microseconds())
		}
		if a.has("epoch") {
			answer.Epoch = a.epoch("epoch")
		}
		return BallotAnswered{Round: p.m.round, Answer: answer}
	case "no-answer":
		return BallotUnanswered{Round: p.m.round, Node: a.node("by"), Reason: "timed out"}
	case "fork-committed":
		return ForkCommitted{Attempt: attempt}
	case "token-acquired":
		return TokenAcquired{Attempt: attempt}
	case "database-promoted":
		return DatabasePromoted{Attempt: attempt}
	case "leadership-offered":
		return LeadershipOffered{Attempt: attempt}
	case "failed":
		f := Failed{Attempt: attempt, Reason: a.text("reason")}
		if a.has("floor") {
			f.Floor = a.epoch("floor")
		}
		return f
	case "epoch-seen":
		return EpochSeen{Epoch: a.epoch("epoch"), Node: a.node("node")}
	case "primary-known":
		return PrimaryKnown{Node: a.node("node"), Epoch: a.epoch("epoch"), Address: a.text("address")}
	case "healthy":
		return PrimaryHealth{Kind: health.Healthy, Node: a.node("node")}
	case "unreachable":
		return PrimaryHealth{Kind: health.Unreachable, Node: a.node("node")}
	case "hand-over":
		return HandOver{Epoch: a.epoch("epoch"), To: a.node("to")}
	case "store-hangs":
		return StoreHangs{Reason: a.text("reason")}
	case "retire":
		return Retire{}
	case "append-entries":
		return Received{From: a.node("from"), Message: protocol.AppendEntries{Payload: []byte(a.text("payload"))}}
	case "append-entries-response":
		return Received{From: a.node("from"), Message: protocol.AppendEntriesResponse{Payload: []byte(a.text("payload"))}}
	case "tick":
		return Tick{}
	}
	p.t.Fatalf("unknown input %q", a.words[0])
	return nil
}

func (p *player) action(action Action) {
	switch a := action.(type) {
	case Emit:
		fmt.Fprintf(&p.out, indent+"event %s", plain(a.Event))
		if a.Since > 0 {
			fmt.Fprintf(&p.out, " after %v", a.Since)
		}
		if a.Detail != "" {
			fmt.Fprintf(&p.out, ": %s", a.Detail)
		}
		fmt.Fprintln(&p.out)
	case SendBallots:
		for _, m := range a.Messages {
			fmt.Fprintf(&p.out, indent+"send  to %d %s, round %d\n", m.To, plain(m.Message), a.Round)
		}
	case Send:
		for _, m := range a.Messages {
			fmt.Fprintf(&p.out, indent+"send  to %d %s\n", m.To, plain(m.Message))
		}
	default:
		fmt.Fprintf(&p.out, indent+"do    %s\n", plain(a))
	}
}

// standing writes what has changed of the machine's own account of itself.
func (p *player) standing(out Output) {
	if !out.Wake.IsZero() {
		fmt.Fprintf(&p.out, indent+"wake  after %v\n", out.Wake.Sub(p.now))
	}
	now := p.m.State().String()
	if primary := p.m.Primary(); primary.Node != 0 {
		now += fmt.Sprintf(", primary %d of epoch %d", primary.Node, primary.Epoch)
	}
	if why := p.m.Blocked(); why != "" {
		now += ", blocked: " + why
	}
	if now != p.last {
		fmt.Fprintf(&p.out, indent+"state %s\n", now)
		p.last = now
	}
}

// plain writes a value as a reader of the design would.
func plain(v any) string {
	name := fmt.Sprintf("%T", v)
	name = name[strings.LastIndex(name, ".")+1:]
	return name + strings.ReplaceAll(fmt.Sprintf("%+v", v), "Payload:[", "Payload:bytes[")
}

// arguments are the words of a line: a verb, then name=value each.
type arguments struct {
	t     *testing.T
	words []string
}

func (a arguments) find(name string) (string, bool) {
	for _, w := range a.words[1:] {
		if value, is := strings.CutPrefix(w, name+"="); is {
			return value, true
		}
	}
	return "", false
}

func (a arguments) has(name string) bool { _, is := a.find(name); return is }

func (a arguments) text(name string) string {
	value, is := a.find(name)
	if !is {
		a.t.Fatalf("%q needs %s=", a.words, name)
	}
	return strings.ReplaceAll(value, "_", " ")
}

func (a arguments) number(name string) uint64 { return a.parse(a.text(name)) }

func (a arguments) parse(s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		a.t.Fatal(a.words, err)
	}
	return n
}

func (a arguments) duration(name string) time.Duration {
	d, err := time.ParseDuration(a.text(name))
	if err != nil {
		a.t.Fatal(a.words, err)
	}
	return d
}

func (a arguments) epoch(name string) protocol.Epoch { return protocol.Epoch(a.number(name)) }
func (a arguments) node(name string) protocol.NodeID { return protocol.NodeID(a.number(name)) }

func (a arguments) nodes(name string) (out []protocol.NodeID) {
	for _, s := range strings.Split(a.text(name), ",") {
		out = append(out, protocol.NodeID(a.parse(s)))
	}
	return out
}

// pair reads node/epoch.
func (a arguments) pair(name string) (protocol.NodeID, protocol.Epoch) {
	node, epoch, _ := strings.Cut(a.text(name), "/")
	return protocol.NodeID(a.parse(node)), protocol.Epoch(a.parse(epoch))
}

func (a arguments) rules() (r Rules) {
	r.Paused = a.has("paused")
	if a.has("maintenance") {
		r.Maintenance = a.nodes("maintenance")
	}
	if a.has("witnesses") {
		r.Witnesses = a.nodes("witnesses")
	}
	if a.has("permit") {
		r.Permit.Node, r.Permit.After = a.pair("permit")
	}
	return r
}

func (a arguments) position(name string) protocol.Position {
	timeline, lsn, _ := strings.Cut(a.text(name), "/")
	return protocol.Position{Timeline: protocol.Epoch(a.parse(timeline)), LSN: protocol.LSN(a.parse(lsn))}
}
