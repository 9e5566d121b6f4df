package ha

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aiondb/aiondb-ha/failover"
	"github.com/aiondb/aiondb-ha/fsm"
	"github.com/aiondb/aiondb-ha/fsm/command"
	"github.com/aiondb/aiondb-ha/internal/transport"
	"github.com/aiondb/aiondb-ha/protocol"
)

// Bounds of a request to the Raft leader.
const (
	// DefaultRequestTimeout bounds a request whose context has no deadline.
	DefaultRequestTimeout = 5 * time.Second
	// MaxRequestTimeout bounds what a forwarded request may ask for.
	MaxRequestTimeout = 60 * time.Second

	leaderPollInterval = 10 * time.Millisecond  // how often a request without a leader looks for one
	quorumProbeTimeout = 200 * time.Millisecond // how long a voter may take to prove that it is there
)

// Propose commits a command to the replicated state and returns what it
// changed. It may be called on any node; another than the leader forwards it.
//
// Errors: a *fsm.RefusedError when the command was committed and refused;
// ErrNoQuorum or ErrNotLeader when nothing was done; ErrOutcomeUnknown when it
// may still happen (an error may be both ErrNoQuorum and ErrOutcomeUnknown).
// Keys under fsm.ReservedPrefix are refused: they are this package's own.
func (n *Node) Propose(ctx context.Context, c command.Command) (fsm.Result, error) {
	if kv, ok := c.(command.KvWrite); ok {
		if err := refuseReserved(kv); err != nil {
			return fsm.Result{}, err
		}
	}
	return n.propose(ctx, c)
}

func refuseReserved(write command.KvWrite) error {
	if !bytes.HasPrefix(write.Key, []byte(fsm.ReservedPrefix)) {
		return nil
	}
	return &fsm.RefusedError{Reason: fmt.Sprintf("keys under %q are reserved for the cluster itself: choose another prefix", fsm.ReservedPrefix)}
}

// ProposeIf is Propose for a write that takes place only if the key has that
// revision (fsm.Entry) at the moment of the write; 0: only if the key is not
// there. Otherwise the error is a *fsm.RevisionError with the revision that it
// has, and nothing was proposed. It may be called on any node.
//
// Afterwards the key's revision is the result's Index if it was Changed. If not,
// because the value was there already, it is still the one given.
//
// The other errors are those of Propose. After ErrOutcomeUnknown read the key: if
// its revision is another one, this write or somebody else's has taken place,
// and which of them, the value must tell. If it is the same, this write may still
// come; a conditional write of the same revision, tried again, keeps it from
// doing so, or waits until it has: of those that depend on one revision at most
// one changes the key.
//
// Conditional writes of one key follow one another, each for as long as a commit
// takes; plain writes of that key wait for them. Other keys wait for nothing. How
// it is made sure that nothing comes between: raftshim.Consensus.ProposeIf.
func (n *Node) ProposeIf(ctx context.Context, write command.KvWrite, revision uint64) (fsm.Result, error) {
	if err := refuseReserved(write); err != nil {
		return fsm.Result{}, err
	}
	data, err := command.Encode(write)
	if err != nil {
		return fsm.Result{}, fmt.Errorf("encoding %s: %w", write.Name(), err)
	}
	var result fsm.Result
	var differs *fsm.RevisionError
	err = n.atLeader(ctx, "propose "+write.Name(), func(ctx context.Context) error {
		result, err = n.proposeIfHere(ctx, data, write.Key, revision)
		return err
	}, protocol.ForwardRequest{Kind: protocol.ForwardProposeIf, Payload: append(binary.LittleEndian.AppendUint64(nil, revision), data...)}, func(reply []byte) error {
		return json.Unmarshal(reply, &result)
	})
	switch {
	case errors.As(err, &differs):
		return fsm.Result{}, &fsm.RevisionError{Key: bytes.Clone(write.Key), Want: revision, Have: differs.Have}
	case err != nil:
		return fsm.Result{}, err
	}
	return result, result.Err()
}

// propose is Propose, for the package's own keys too.
func (n *Node) propose(ctx context.Context, c command.Command) (fsm.Result, error) {
	data, err := command.Encode(c)
	if err != nil {
		return fsm.Result{}, fmt.Errorf("encoding %s: %w", c.Name(), err)
	}
	var result fsm.Result
	err = n.atLeader(ctx, "propose "+c.Name(), func(ctx context.Context) error {
		result, err = n.proposeHere(ctx, data)
		return err
	}, protocol.ForwardRequest{Kind: protocol.ForwardPropose, Payload: data}, func(reply []byte) error {
		return json.Unmarshal(reply, &result)
	})
	if err != nil {
		return fsm.Result{}, err
	}
	return result, result.Err()
}

// proposeHere commits a canonical command, this node being the leader.
func (n *Node) proposeHere(ctx context.Context, data []byte) (fsm.Result, error) {
	response, _, err := n.consensus.Propose(ctx, data)
	return resultOf(response, err)
}

// proposeIfHere is proposeHere for a write of key that depends on its revision.
func (n *Node) proposeIfHere(ctx context.Context, data, key []byte, revision uint64) (fsm.Result, error) {
	response, _, err := n.consensus.ProposeIf(ctx, data, func() error {
		// A state machine that has halted does not have what was proposed since.
		if err := n.fsm.Halted(); err != nil {
			return err
		}
		var have uint64
		n.fsm.Read(func(s *fsm.State) { have = s.KVRevision(key) })
		if have != revision {
			return &fsm.RevisionError{Key: bytes.Clone(key), Want: revision, Have: have}
		}
		return nil
	})
	return resultOf(response, err)
}

func resultOf(response any, err error) (fsm.Result, error) {
	if err != nil {
		return fsm.Result{}, err
	}
	result, ok := response.(fsm.Result)
	if !ok {
		return fsm.Result{}, fmt.Errorf("the state machine answered with a %T", response)
	}
	return result, nil
}

// readIndexHere returns, this node being the leader, the index of the command
// that a read must not be behind.
func (n *Node) readIndexHere(ctx context.Context) (uint64, error) {
	commit, err := n.consensus.ReadIndex(ctx)
	if err != nil {
		return 0, err
	}
	return n.fsm.CommandIndex(n.store, commit)
}

// Read calls read with the replicated state and says how fresh it was. read
// must not keep the State or change it, and must not block.
//
// fsm.Linearizable reflects every command whose Propose returned before Read
// was called; it asks the leader for that, and fails with ErrNoQuorum or
// ErrNotLeader when it can't be had. fsm.Stale reads what this node has.
//
// An answer that leaves late, because the process was stopped before it was
// sent, is linearizable still: what was read was current at a moment between
// question and answer, and what was proposed is committed, whoever leads by
// then. So what Raft answers needs no time of validity; what a primary answers
// on its lease does, see fencing.ValidFor.
func (n *Node) Read(ctx context.Context, c fsm.Consistency, read func(*fsm.State)) (fsm.Freshness, error) {
	if c == fsm.Stale {
		return n.readStale(read), nil
	}
	var index uint64
	err := n.atLeader(ctx, "read", func(ctx context.Context) (err error) {
		index, err = n.readIndexHere(ctx)
		return err
	}, protocol.ForwardRequest{Kind: protocol.ForwardReadIndex}, func(reply []byte) error {
		if len(reply) != 8 {
			return fmt.Errorf("read index of %d bytes, want 8", len(reply))
		}
		index = binary.LittleEndian.Uint64(reply)
		return nil
	})
	if err != nil {
		return fsm.Freshness{}, err
	}
	if err := n.fsm.Wait(ctx, index); err != nil {
		return fsm.Freshness{}, fmt.Errorf("catching up with the leader: %w", err)
	}
	var at uint64
	n.fsm.Read(func(s *fsm.State) {
		at, _ = s.Applied()
		read(s)
	})
	return fsm.Freshness{Index: at}, nil
}

func (n *Node) readStale(read func(*fsm.State)) fsm.Freshness {
	f := fsm.Freshness{Stale: true, AgeMS: n.contactAge()}
	n.fsm.Read(func(s *fsm.State) {
		f.Index, _ = s.Applied()
		read(s)
	})
	return f
}

// contactAge returns how long ago, in ms, this node last knew itself to be up
// to date with a leader: -1 if it never did. A leader may be deposed without
// knowing for as long as its lease, so that is the age on a leader.
func (n *Node) contactAge() int64 {
	if leader, _ := n.consensus.Leader(); leader == n.config.NodeID {
		return n.config.HealthCheckTimeout.Milliseconds()
	}
	last := n.consensus.LastContact()
	if last.IsZero() {
		return -1
	}
	return time.Since(last).Milliseconds()
}

// atLeader does something at the Raft leader: by calling here if this node
// leads, by forwarding request and giving the reply to there otherwise. As long
// as nothing is known to have been done it looks for a leader again, until ctx
// ends; then it finds out whether a quorum is missing, and says so.
func (n *Node) atLeader(ctx context.Context, what string, here func(context.Context) error, request protocol.ForwardRequest, there func([]byte) error) error {
	if err := n.running(); err != nil {
		return err
	}
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, DefaultRequestTimeout)
		defer cancel()
	}
	deadline, _ := ctx.Deadline()
	// Time is kept back to find out, at the end, why it did not work.
	try, cancel := context.WithDeadline(ctx, deadline.Add(-min(quorumProbeTimeout, time.Until(deadline)/4)))
	defer cancel()

	for {
		err := n.askLeader(try, here, request, there)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, failover.ErrOutcomeUnknown):
			return n.explain(ctx, what, true, err)
		case errors.As(err, new(*fsm.RevisionError)):
			return err // an answer, and not the lack of one
		case !errors.Is(err, failover.ErrNotLeader) && !errors.Is(err, transport.ErrNotSent) && try.Err() == nil:
			return fmt.Errorf("%s: %w", what, err)
		}
		select {
		case <-try.Done():
			return n.explain(ctx, what, false, err)
		case <-n.life.Done():
			return failover.ErrClosed
		case <-time.After(leaderPollInterval):
		}
	}
}

// askLeader tries once.
func (n *Node) askLeader(ctx context.Context, here func(context.Context) error, request protocol.ForwardRequest, there func([]byte) error) error {
	leader, _ := n.consensus.Leader()
	if leader == n.config.NodeID {
		return here(ctx)
	}
	if leader == protocol.NoNode {
		return &failover.NotLeaderError{}
	}
	deadline, _ := ctx.Deadline()
	request.TimeoutUS = uint64(max(time.Until(deadline), 0).Microseconds())
	answer, err := n.messenger.Call(ctx, leader, request)
	if err != nil {
		if request.Kind == protocol.ForwardReadIndex || errors.Is(err, transport.ErrNotSent) {
			return fmt.Errorf("%w: %w", &failover.NotLeaderError{Leader: leader}, err)
		}
		return fmt.Errorf("%w: node %s was asked and did not answer: %w", failover.ErrOutcomeUnknown, leader, err)
	}
	reply, ok := answer.(protocol.ForwardReply)
	if !ok {
		return fmt.Errorf("node %s answered a forwarded request with %T", leader, answer)
	}
	switch reply.Status {
	case protocol.ForwardOK:
		return there(reply.Payload)
	case protocol.ForwardNotLeader, protocol.ForwardNoQuorum:
		return &failover.NotLeaderError{Leader: leader}
	case protocol.ForwardUnknown:
		return fmt.Errorf("%w: %s", failover.ErrOutcomeUnknown, reply.Payload)
	case protocol.ForwardDiffers:
		return &fsm.RevisionError{Have: binary.LittleEndian.Uint64(reply.Payload)} // of 8 bytes, or it were no message
	}
	return fmt.Errorf("node %s refused: %s", leader, reply.Payload)
}

// serveForward does what another node's client asks of the leader.
func (n *Node) serveForward(ctx context.Context, from protocol.NodeID, request protocol.ForwardRequest) (protocol.ForwardReply, error) {
	timeout := min(time.Duration(min(request.TimeoutUS, uint64(MaxRequestTimeout.Microseconds())))*time.Microsecond, MaxRequestTimeout)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var payload []byte
	var err error
	switch request.Kind {
	case protocol.ForwardPropose:
		var result fsm.Result
		if result, err = n.proposeHere(ctx, request.Payload); err == nil {
			payload, err = json.Marshal(result)
		}
	case protocol.ForwardProposeIf:
		payload, err = n.serveProposeIf(ctx, request.Payload)
	case protocol.ForwardReadIndex:
		var index uint64
		if index, err = n.readIndexHere(ctx); err == nil {
			payload = binary.LittleEndian.AppendUint64(nil, index)
		}
	case protocol.ForwardSwitchover:
		if len(request.Payload) != 8 {
			err = fmt.Errorf("a switchover's payload has 8 bytes, not %d", len(request.Payload))
			break
		}
		err = n.driver.Load().Switchover(ctx, protocol.NodeID(binary.LittleEndian.Uint64(request.Payload)))
	default:
		err = fmt.Errorf("unknown kind of forwarded request %d: node %s runs another version", request.Kind, from)
	}
	return forwardReply(payload, err), nil
}

func (n *Node) serveProposeIf(ctx context.Context, payload []byte) ([]byte, error) {
	if len(payload) < 8 {
		return nil, fmt.Errorf("what is to be proposed if a key has a revision begins with 8 bytes, not %d", len(payload))
	}
	revision, data := binary.LittleEndian.Uint64(payload), payload[8:]
	c, err := command.Decode(data)
	if err != nil {
		return nil, err
	}
	write, ok := c.(command.KvWrite)
	if !ok {
		return nil, fmt.Errorf("a %s cannot depend on a revision", c.Name())
	}
	result, err := n.proposeIfHere(ctx, data, write.Key, revision)
	if err != nil {
		return nil, err
	}
	return json.Marshal(result)
}

func forwardReply(payload []byte, err error) protocol.ForwardReply {
	var differs *fsm.RevisionError
	switch {
	case errors.As(err, &differs):
		return protocol.ForwardReply{Status: protocol.ForwardDiffers, Payload: binary.LittleEndian.AppendUint64(nil, differs.Have)}
	case err == nil:
		return protocol.ForwardReply{Status: protocol.ForwardOK, Payload: payload}
	case errors.Is(err, failover.ErrOutcomeUnknown):
		return protocol.ForwardReply{Status: protocol.ForwardUnknown, Payload: []byte(err.Error())}
	case errors.Is(err, failover.ErrNotLeader), errors.Is(err, failover.ErrClosed): // somebody else can be asked
		return protocol.ForwardReply{Status: protocol.ForwardNotLeader}
	case errors.Is(err, failover.ErrNoQuorum):
		return protocol.ForwardReply{Status: protocol.ForwardNoQuorum}
	}
	return protocol.ForwardReply{Status: protocol.ForwardRefused, Payload: []byte(err.Error())}
}

// QuorumError says that too few voters answer for the cluster to decide
// anything. It is ErrNoQuorum, and ErrOutcomeUnknown too if Unknown.
type QuorumError struct {
	What      string // what was being done
	Reachable int    // voters that answer, this node included
	Voters    int
	Needed    int
	Unknown   bool // what was being done may still happen
}

// Error says who is missing and what that means for the caller.
func (e *QuorumError) Error() string {
	outcome := "nothing was done"
	if e.Unknown {
		outcome = "it may or may not be done once enough nodes are back"
	}
	return fmt.Sprintf("%s: no quorum: %d of %d voters answer, %d are needed; %s", e.What, e.Reachable, e.Voters, e.Needed, outcome)
}

// Is makes errors.Is work with ErrNoQuorum and ErrOutcomeUnknown.
func (e *QuorumError) Is(target error) bool {
	return target == failover.ErrNoQuorum || e.Unknown && target == failover.ErrOutcomeUnknown
}

// explain turns the failure of a request into its reason: no quorum if that is
// so, cause otherwise.
func (n *Node) explain(ctx context.Context, what string, unknown bool, cause error) error {
	voters := n.consensus.Voters()
	needed := len(voters)/2 + 1
	if reachable := n.countReachable(ctx, voters); reachable < needed {
		return &QuorumError{What: what, Reachable: reachable, Voters: len(voters), Needed: needed, Unknown: unknown}
	}
	return fmt.Errorf("%s: %w", what, cause)
}

// countReachable asks every voter for a sign of life and counts those that
// give one, this node included.
func (n *Node) countReachable(ctx context.Context, voters []protocol.NodeID) int {
	ctx, cancel := context.WithTimeout(ctx, quorumProbeTimeout)
	defer cancel()
	var count atomic.Int64
	var probes sync.WaitGroup
	for _, id := range voters {
		if id == n.config.NodeID {
			count.Add(1)
			continue
		}
		probes.Go(func() {
			if _, err := n.messenger.Call(ctx, id, n.driver.Load().Heartbeat()); err == nil {
				count.Add(1)
			}
		})
	}
	probes.Wait()
	return int(count.Load())
}
