package main

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	ha "github.com/aiondb/aiondb-ha"
	"github.com/aiondb/aiondb-ha/failover"
	"github.com/aiondb/aiondb-ha/fsm"
	raftcommand "github.com/aiondb/aiondb-ha/fsm/command"
	"github.com/aiondb/aiondb-ha/internal/httpapi"
	"github.com/aiondb/aiondb-ha/protocol"
)

const testSecret = "0123456789abcdef0123456789abcdef"

// fakeNode is a cluster as seen through one node's API: a real state, no Raft.
type fakeNode struct {
	mu      sync.Mutex
	state   *fsm.State
	index   uint64
	err     error
	status  ha.Status
	nodes   []ha.NodeInfo
	journal []failover.Record
	live    chan failover.Record
}

func (f *fakeNode) Status() any {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.status
}

func (f *fakeNode) Nodes() any { return f.nodes }

func (f *fakeNode) Propose(_ context.Context, c raftcommand.Command) (fsm.Result, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return fsm.Result{}, f.err
	}
	f.index++
	return f.state.Apply(f.index, 1, c), nil
}

func (f *fakeNode) ProposeIf(ctx context.Context, c raftcommand.KvWrite, revision uint64) (fsm.Result, error) {
	f.mu.Lock()
	have := f.state.KVRevision(c.Key)
	f.mu.Unlock()
	if f.err == nil && have != revision {
		return fsm.Result{}, &fsm.RevisionError{Key: c.Key, Want: revision, Have: have}
	}
	return f.Propose(ctx, c)
}

func (f *fakeNode) Read(_ context.Context, c fsm.Consistency, read func(*fsm.State)) (fsm.Freshness, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil && c != fsm.Stale {
		return fsm.Freshness{}, f.err
	}
	read(f.state)
	fresh := fsm.Freshness{Index: f.index}
	if c == fsm.Stale {
		fresh.Stale, fresh.AgeMS = true, 1500
	}
	return fresh, nil
}

func (f *fakeNode) Switchover(_ context.Context, to protocol.NodeID) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return f.err
	}
	if to == protocol.NoNode {
		to = 3
	}
	f.status.Primary, f.status.PrimaryAddress, f.status.Role = to, "127.0.0.1:7802", protocol.RoleReplica
	f.status.Epoch++
	return nil
}

func (f *fakeNode) Journal(after uint64) []failover.Record {
	return f.journal[min(after, uint64(len(f.journal))):]
}
func (f *fakeNode) Events(context.Context) <-chan failover.Record { return f.live }
func (f *fakeNode) Is(string) (bool, string)                      { return true, "" }
func (f *fakeNode) Metrics() []httpapi.Metric                     { return nil }

func newFakeNode() *fakeNode {
	lag := func(n uint64) *uint64 { return &n }
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	return &fakeNode{
		state: fsm.NewState(),
		live:  make(chan failover.Record),
		status: ha.Status{
			NodeID: 1, Version: "v1.2.3", Role: protocol.RolePrimary, State: failover.Promoted,
			Epoch: 7, Floor: 7, Term: 7, Leader: 1, Primary: 1, PrimaryAddress: "127.0.0.1:7800",
			Position: protocol.Position{Timeline: 7, LSN: 1200}, AppliedIndex: 42,
			Quorum: ha.Quorum{Voters: 3, Needed: 2, Reachable: 2}, UptimeMS: 83_000,
		},
		nodes: []ha.NodeInfo{
			{NodeID: 1, DatabaseAddress: "127.0.0.1:7800", APIAddress: "127.0.0.1:7700", Alive: true, Role: protocol.RolePrimary, Epoch: 7, LSN: 1200, Lag: lag(0), Leader: true, Primary: true, Voter: true},
			{NodeID: 2, DatabaseAddress: "127.0.0.1:7801", APIAddress: "127.0.0.1:7701", Alive: true, Role: protocol.RoleReplica, Epoch: 7, LSN: 1190, Lag: lag(10), RTTUS: 840, LastSeenMS: 12, Voter: true},
			{NodeID: 3, Alive: false, Role: protocol.RoleReplica, LastSeenMS: -1},
		},
		journal: []failover.Record{
			{Seq: 1, At: at, Event: "PrimaryLost", Epoch: 6, Node: 3},
			{Seq: 2, At: at.Add(120 * time.Millisecond), Event: "ElectionWon", Epoch: 7, Detail: "2 of 3 granted\x1b[2J", SinceMS: 120, StepMS: 80},
			{Seq: 3, At: at.Add(130 * time.Millisecond), Event: "PromotionComplete", Epoch: 7, SinceMS: 130, StepMS: 10},
		},
	}
}

// handler is the API of the node, for who has one of tokens.
func (f *fakeNode) handler(tokens httpapi.Tokens) http.Handler {
	access := httpapi.NewAccess([][]byte{[]byte(testSecret)}, tokens)
	return httpapi.New(f, httpapi.NewGuard(access, nil), nil)
}

// cli runs command lines against one fake node.
type cli struct {
	t   *testing.T
	url string
}

func newCLI(t *testing.T, f *fakeNode) *cli {
	server := httptest.NewServer(f.handler(httpapi.Tokens{}))
	t.Cleanup(server.Close)
	return &cli{t, server.URL}
}

// run runs one command line, stdin given, and returns what it said.
func (c *cli) run(stdin string, args ...string) (code int, stdout, stderr string) {
	c.t.Helper()
	var out, errs bytes.Buffer
	a := &app{ctx: c.t.Context(), stdin: strings.NewReader(stdin), stdout: &out, stderr: &errs, environ: []string{apiEnv + "=" + c.url}}
	code = a.run(args)
	return code, out.String(), errs.String()
}

func (f *fakeNode) lay(ctx context.Context, c raftcommand.KvWrite, err error) error {
	if err == nil {
		_, err = f.Propose(ctx, c)
	}
	return err
}

func (f *fakeNode) Rules() fsm.Rules {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state.Rules()
}

func (f *fakeNode) Pause(ctx context.Context, reason string) error {
	c, err := fsm.PauseCommand(fsm.Mark{Node: 1, Reason: reason})
	return f.lay(ctx, c, err)
}

func (f *fakeNode) Resume(ctx context.Context) error { return f.lay(ctx, fsm.ResumeCommand(), nil) }

func (f *fakeNode) BeginMaintenance(ctx context.Context, id protocol.NodeID, reason string) error {
	c, err := fsm.MaintenanceCommand(fsm.NodeMark{NodeID: id, Mark: fsm.Mark{Node: 1, Reason: reason}})
	return f.lay(ctx, c, err)
}

func (f *fakeNode) EndMaintenance(ctx context.Context, id protocol.NodeID) error {
	return f.lay(ctx, fsm.EndMaintenanceCommand(id), nil)
}

func (f *fakeNode) PermitFailover(ctx context.Context, id protocol.NodeID, reason string) error {
	c, err := fsm.PermitCommand(fsm.Permit{NodeID: id, After: 7, Mark: fsm.Mark{Node: 1, Reason: reason}})
	return f.lay(ctx, c, err)
}
