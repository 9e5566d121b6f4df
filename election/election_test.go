package election

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/aiondb/aiondb-ha/protocol"
)

var t0 = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func at(ms int) time.Time { return t0.Add(time.Duration(ms) * time.Millisecond) }

func pos(timeline, lsn uint64) protocol.Position {
	return protocol.Position{Timeline: protocol.Epoch(timeline), LSN: protocol.LSN(lsn)}
}

func ids(n ...protocol.NodeID) []protocol.NodeID { return n }

func config(voters, alive, passedOver []protocol.NodeID) Config {
	return Config{Local: 1, Voters: voters, Epoch: 7, Position: pos(6, 150), Timeout: 200 * time.Millisecond,
		Grace: 20 * time.Millisecond, Alive: alive, PassedOver: passedOver}
}

// says is an answer a test gives at a time.
type says struct {
	at       int // ms
	by       protocol.NodeID
	refusal  protocol.BallotRefusal
	position protocol.Position
	floor    protocol.Epoch
}

const silence protocol.BallotRefusal = 255 // no answer will come

func TestElection(t *testing.T) {
	three, five := ids(1, 2, 3), ids(1, 2, 3, 4, 5)
	const granted, better, stale, unavailable = protocol.BallotGranted, protocol.BallotBetter, protocol.BallotStaleEpoch, protocol.BallotUnavailable
	for _, test := range []struct {
		name    string
		config  Config
		answers []says
		tick    int // ms, after the answers; 0: none
		want    Result
		best    protocol.NodeID
		floor   protocol.Epoch
	}{
		{name: "alone", config: config(ids(1), ids(1), nil), want: Won},
		{name: "not a voter", config: config(ids(2, 3), nil, nil), tick: 200, want: Timeout},
		{name: "nobody answered yet", config: config(three, three, nil), want: Pending},
		{name: "quorum, the rest is dead", config: config(three, ids(1, 2), nil), answers: []says{{1, 2, granted, pos(6, 150), 7}}, want: Won},
		{name: "quorum, the rest is alive", config: config(three, three, nil), answers: []says{{1, 2, granted, pos(6, 150), 7}}, want: Pending},
		{name: "... and its grace is over", config: config(three, three, nil), answers: []says{{1, 2, granted, pos(6, 150), 7}}, tick: 21, want: Won},
		{name: "... and it is better", config: config(three, three, nil), answers: []says{{1, 2, granted, pos(6, 150), 7}, {15, 3, better, pos(6, 151), 7}}, want: Lost, best: 3},
		{name: "... and it is unreachable", config: config(three, three, nil), answers: []says{{1, 2, granted, pos(6, 150), 7}, {2, 3, silence, pos(0, 0), 0}}, want: Won},
		{name: "timeline before LSN", config: config(three, ids(1, 2), nil), answers: []says{{1, 2, better, pos(7, 1), 7}}, want: Lost, best: 2},
		{name: "a grant with a better position is none", config: config(three, ids(1, 2), nil), answers: []says{{1, 2, granted, pos(6, 151), 7}}, want: Lost, best: 2},
		{name: "better, but is not", config: config(three, three, nil), answers: []says{{1, 2, better, pos(6, 150), 7}, {1, 3, silence, pos(0, 0), 0}}, want: InsufficientNodes},
		{name: "the best of several", config: config(five, five, nil), answers: []says{{1, 2, better, pos(6, 200), 7}, {1, 3, better, pos(7, 10), 7}, {1, 4, better, pos(6, 300), 7}, {1, 5, better, pos(7, 10), 7}}, want: Lost, best: 3},
		{name: "better, but no quorum of positions yet", config: config(five, five, nil), answers: []says{{1, 2, better, pos(6, 200), 7}}, want: Pending},
		{name: "... until the end", config: config(five, five, nil), answers: []says{{1, 2, better, pos(6, 200), 7}}, tick: 200, want: Lost, best: 2},
		{name: "better, and the others are gone", config: config(three, three, nil), answers: []says{{1, 2, better, pos(6, 200), 7}, {1, 3, silence, pos(0, 0), 0}}, want: Lost, best: 2},
		{name: "passed over, with a quorum of others", config: config(three, three, ids(3)), answers: []says{{1, 3, better, pos(6, 200), 7}, {2, 2, granted, pos(6, 100), 7}}, want: Won},
		{name: "passed over, nobody else", config: config(three, three, ids(3)), answers: []says{{1, 3, better, pos(6, 200), 7}, {2, 2, silence, pos(0, 0), 7}}, want: InsufficientNodes},
		{name: "passed over is not waited for", config: config(three, three, ids(3)), answers: []says{{2, 2, granted, pos(6, 100), 7}}, want: Won},
		{name: "stale", config: config(three, three, nil), answers: []says{{1, 3, stale, pos(0, 0), 9}}, want: Lost, floor: 9},
		{name: "stale beats a grant given before", config: config(five, five, nil), answers: []says{{1, 3, granted, pos(0, 0), 7}, {2, 3, stale, pos(0, 0), 9}}, want: Lost, floor: 9},
		{name: "same epoch, other candidate", config: config(three, three, nil), answers: []says{{1, 3, stale, pos(0, 0), 7}}, want: Lost, floor: 7},
		{name: "timeout", config: config(three, three, nil), tick: 200, want: Timeout},
		{name: "almost", config: config(three, three, nil), tick: 199, want: Pending},
		{name: "all unreachable", config: config(three, three, nil), answers: []says{{1, 2, silence, pos(0, 0), 0}, {1, 3, unavailable, pos(0, 0), 0}}, want: InsufficientNodes},
		{name: "one unreachable of five", config: config(five, five, nil), answers: []says{{1, 2, silence, pos(0, 0), 0}, {1, 3, silence, pos(0, 0), 0}}, want: Pending},
		{name: "an answer after all", config: config(three, ids(1), nil), answers: []says{{1, 2, unavailable, pos(0, 0), 0}, {2, 2, granted, pos(0, 0), 7}}, want: Won},
		{name: "strangers do not count", config: config(three, three, nil), answers: []says{{1, 8, granted, pos(0, 0), 7}, {1, 9, granted, pos(0, 0), 7}, {1, 1, granted, pos(0, 0), 7}}, want: Pending},
		{name: "twice is once", config: config(five, ids(1), nil), answers: []says{{1, 2, granted, pos(0, 0), 7}, {1, 2, granted, pos(0, 0), 7}}, want: Pending},
		{name: "unknown refusal is no grant", config: config(three, ids(1), nil), answers: []says{{1, 2, 77, pos(0, 0), 7}}, want: Pending},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := New(test.config, at(0))
			for _, a := range test.answers {
				if a.refusal == silence {
					e.Unreachable(at(a.at), a.by)
				} else {
					e.Answer(at(a.at), protocol.BallotAnswer{Epoch: 7, VoterID: a.by, Refusal: a.refusal, Position: a.position, Floor: a.floor})
				}
			}
			if test.tick > 0 {
				e.Tick(at(test.tick))
			}
			if got := e.Outcome(); got.Result != test.want || got.Floor != test.floor || test.want == Lost && got.Best != test.best {
				t.Errorf("got %+v, want %v, best %d, floor %d", got, test.want, test.best, test.floor)
			}
		})
	}
}

func TestElectionIgnoresOtherEpochs(t *testing.T) {
	e := New(config(ids(1, 2, 3), ids(1), nil), at(0))
	for _, epoch := range []protocol.Epoch{0, 6, 8} {
		e.Answer(at(1), protocol.BallotAnswer{Epoch: epoch, VoterID: 2})
		e.Answer(at(1), protocol.BallotAnswer{Epoch: epoch, VoterID: 3, Refusal: protocol.BallotStaleEpoch, Floor: 100})
	}
	if got := e.Outcome(); got.Result != Pending || len(got.Granted) != 1 {
		t.Errorf("got %+v", got)
	}
}

func TestDeadline(t *testing.T) {
	e := New(config(ids(1, 2, 3), ids(1, 2, 3), nil), at(0))
	if got := e.Deadline(); got != at(200) {
		t.Errorf("deadline %v", got.Sub(t0))
	}
	e.Answer(at(190), protocol.BallotAnswer{Epoch: 7, VoterID: 2})
	if got := e.Deadline(); got != at(200) {
		t.Errorf("deadline with the grace beyond the timeout %v", got.Sub(t0))
	}
	e = New(config(ids(1, 2, 3), ids(1, 2, 3), nil), at(0))
	e.Answer(at(50), protocol.BallotAnswer{Epoch: 7, VoterID: 2})
	if got := e.Deadline(); got != at(70) {
		t.Errorf("deadline in the grace %v", got.Sub(t0))
	}
}

// dumbQuorum counts every set of voters that is no quorum out: yes is a
// quorum when what is left over is too small to be one.
func dumbQuorum(voters, yes []protocol.NodeID) bool {
	voters = slices.Compact(slices.Sorted(slices.Values(voters)))
	in, out := 0, 0
	for _, v := range voters {
		if slices.Contains(yes, v) {
			in++
		} else {
			out++
		}
	}
	return in > out
}

func TestQuorumAgainstDumbOne(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	some := func() (out []protocol.NodeID) {
		for range rnd.IntN(9) {
			out = append(out, protocol.NodeID(rnd.IntN(8)))
		}
		return out
	}
	for range 20000 {
		voters, yes := some(), some()
		if got, want := IsQuorum(voters, yes), dumbQuorum(voters, yes); got != want {
			t.Fatalf("IsQuorum(%v, %v) = %v, want %v", voters, yes, got, want)
		}
	}
	for n := 1; n < 100; n++ {
		if q := Quorum(n); 2*q <= n || 2*(q-1) > n {
			t.Errorf("Quorum(%d) = %d: two of them may miss each other, or a smaller one would do", n, q)
		}
	}
}

// The outcome does not depend on the order of the answers, nor on their being
// repeated (I7), and a win is always a quorum of grants none of which is
// better (I3).
func TestElectionProperties(t *testing.T) {
	for seed := range uint64(3000) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		n := 1 + rnd.IntN(7)
		var voters, alive, passedOver []protocol.NodeID
		for i := range n {
			id := protocol.NodeID(i + 1)
			voters = append(voters, id)
			if rnd.IntN(3) > 0 {
				alive = append(alive, id)
			}
			if rnd.IntN(8) == 0 {
				passedOver = append(passedOver, id)
			}
		}
		var answers []protocol.BallotAnswer
		positions := map[protocol.NodeID]protocol.Position{}
		for _, id := range voters[1:] {
			positions[id] = pos(uint64(5+rnd.IntN(3)), uint64(148+rnd.IntN(5)))
			voter := Voter{ID: id, Floor: 7, PromisedTo: 1, Position: positions[id]}
			switch rnd.IntN(10) {
			case 0: // silent
			case 1:
				answers = append(answers, voter.Unavailable(protocol.BallotRequest{Epoch: 7, CandidateID: 1}))
			case 2:
				voter.Floor = 8
				fallthrough
			default:
				a := voter.Decide(protocol.BallotRequest{Epoch: 7, CandidateID: 1, Position: pos(6, 150)})
				answers = append(answers, a)
			}
		}
		hold := func() Outcome {
			e := New(config(voters, alive, passedOver), at(0))
			given := slices.Clone(answers)
			if len(given) > 0 { // one of them twice
				given = append(given, given[rnd.IntN(len(given))])
			}
			rnd.Shuffle(len(given), func(i, j int) { given[i], given[j] = given[j], given[i] })
			for _, a := range given {
				if e.Outcome().Result == Pending {
					e.Answer(at(1), a)
				}
			}
			e.Tick(at(300))
			return e.Outcome()
		}
		first := hold()
		if first.Result == Pending {
			t.Fatalf("seed %d: still pending at the end", seed)
		}
		if first.Result == Won {
			if !dumbQuorum(voters, first.Granted) {
				t.Fatalf("seed %d: won with %v of %v", seed, first.Granted, voters)
			}
			for _, id := range first.Granted {
				if id != 1 && positions[id].Compare(pos(6, 150)) > 0 {
					t.Fatalf("seed %d: granted by %d, which has more", seed, id)
				}
			}
		}
		// Whom a quorum leaves unheard depends on who is early, and so does how
		// soon it shows that there is none; when all answers must be in, the
		// result is one.
		if len(alive) == n && len(passedOver) == 0 && first.Answered >= first.Needed {
			for range 3 {
				again := hold()
				if again.Floor == 0 && first.Floor == 0 && again.Answered >= again.Needed && (again.Result != first.Result || again.Best != first.Best) {
					t.Fatalf("seed %d: %+v in one order, %+v in another", seed, first, again)
				}
			}
		}
	}
}

func TestVoter(t *testing.T) {
	req := protocol.BallotRequest{Epoch: 7, CandidateID: 1, Position: pos(6, 150)}
	for _, test := range []struct {
		name  string
		voter Voter
		want  protocol.BallotRefusal
	}{
		{"promised", Voter{Floor: 7, PromisedTo: 1, Position: pos(6, 149)}, protocol.BallotGranted},
		{"equal", Voter{Floor: 7, PromisedTo: 1, Position: pos(6, 150)}, protocol.BallotGranted},
		{"better", Voter{Floor: 7, PromisedTo: 1, Position: pos(6, 151)}, protocol.BallotBetter},
		{"better by timeline", Voter{Floor: 7, PromisedTo: 1, Position: pos(7, 0)}, protocol.BallotBetter},
		{"longer, older", Voter{Floor: 7, PromisedTo: 1, Position: pos(5, 900)}, protocol.BallotGranted},
		{"promised higher", Voter{Floor: 8, PromisedTo: 1}, protocol.BallotStaleEpoch},
		{"promised to another", Voter{Floor: 7, PromisedTo: 2}, protocol.BallotStaleEpoch},
		{"not promised", Voter{Floor: 6, PromisedTo: 1}, protocol.BallotUnavailable},
	} {
		test.voter.ID = 3
		got := test.voter.Decide(req)
		if got.Refusal != test.want || got.Epoch != 7 || got.VoterID != 3 || got.Floor != test.voter.Floor {
			t.Errorf("%s: %+v, want %v", test.name, got, test.want)
		}
		if tells := got.Position != (protocol.Position{}); tells && test.want != protocol.BallotGranted && test.want != protocol.BallotBetter {
			t.Errorf("%s: a refusal tells a position", test.name)
		}
	}
}

func TestParseState(t *testing.T) {
	original, err := os.ReadFile("testdata/original.json")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseState(original); err != nil || got != (State{CurrentEpoch: 4, VotedEpoch: 4, VotedFor: 1}) {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := ParseState([]byte(`{"current_epoch":4,"voted_for":null}`)); err != nil || got != (State{CurrentEpoch: 4}) {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, bad := range []string{"", "{", "[]", `{"voted_for":null}`, `{"current_epoch":4,"x":1}`, `{"current_epoch":4,"voted_for":[5,1]}`,
		`{"current_epoch":4,"voted_for":[4,0]}`, `{"current_epoch":-1}`, `{"current_epoch":4}{}`} {
		if got, err := ParseState([]byte(bad)); err == nil {
			t.Errorf("%q is taken for %+v", bad, got)
		}
	}
}

func ExampleLeaderElection() {
	now := time.Now()
	ballot := New(Config{Local: 1, Voters: ids(1, 2, 3), Epoch: 7, Position: pos(6, 150),
		Timeout: 500 * time.Millisecond, Grace: 25 * time.Millisecond, Alive: ids(1, 2, 3)}, now)

	// Voter 2 has promised itself to node 1 in epoch 7, and then read its position.
	request := protocol.BallotRequest{Epoch: 7, CandidateID: 1, Position: pos(6, 150)}
	ballot.Answer(now, Voter{ID: 2, Floor: 7, PromisedTo: 1, Position: pos(6, 148)}.Decide(request))
	fmt.Println(ballot.Outcome().Result) // voter 3 is alive and may have more

	ballot.Answer(now, Voter{ID: 3, Floor: 7, PromisedTo: 1, Position: pos(6, 160)}.Decide(request))
	fmt.Println(ballot.Outcome().Result, "to", ballot.Outcome().Best)
	// Output:
	// pending
	// lost to 3
}
