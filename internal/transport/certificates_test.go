package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/internal/pki"
	"github.com/aiondb/aiondb-ha/protocol"
)

func newCA(t testing.TB, name string) pki.Pair {
	t.Helper()
	ca, err := pki.NewCA(name, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func nodePair(t testing.TB, ca pki.Pair, node protocol.NodeID) pki.Pair {
	t.Helper()
	pair, err := pki.NewNode(ca, node, NodeURI(node), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// certified is the identity of a node with a certificate.
func certified(t testing.TB, word string, trusted []byte, pair pki.Pair) *Identity {
	t.Helper()
	id, err := identity(t, word).WithCertificates(trusted, pair.Cert, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestCertificatesNameNodes(t *testing.T) {
	noLeaks(t)
	ca := newCA(t, "one")
	book := &phonebook{}
	two := open(t, certified(t, "right", ca.Cert, nodePair(t, ca, 2)), nil)
	var calls atomic.Int64
	s := NewMessenger(two, 2, book.lookup, func(context.Context, protocol.NodeID, protocol.Message) (protocol.Message, error) {
		calls.Add(1)
		return protocol.Ack{NodeID: 2}, nil
	}, nil)
	t.Cleanup(func() { _ = s.Close() })
	addr := two.Addr().String()
	book.set(2, addr)
	book.set(3, addr) // node 2 stands where node 3 is looked for

	one := open(t, certified(t, "right", ca.Cert, nodePair(t, ca, 1)), nil)
	c, err := one.DialNode(t.Context(), 2, addr, ALPNMessage)
	if err != nil || c.(*peerConn).PeerNode() != 2 {
		t.Fatalf("%v", err)
	}
	_ = c.Close()
	var wrong *WrongNodeError
	if _, err := one.DialNode(t.Context(), 3, addr, ALPNMessage); !errors.As(err, &wrong) || wrong.Want != 3 || wrong.Got != 2 {
		t.Errorf("%v", err)
	}
	good := NewMessenger(one, 1, book.lookup, ack, nil)
	t.Cleanup(func() { _ = good.Close() })
	if _, err := good.Call(within(t, patience), 2, ballot); err != nil {
		t.Error(err)
	}
	if _, err := good.Call(within(t, patience), 3, ballot); !errors.Is(err, ErrWrongNode) || !errors.Is(err, ErrNotSent) {
		t.Errorf("%v", err)
	}
	// Node 4 with its own certificate calls itself node 1.
	liar := NewMessenger(open(t, certified(t, "right", ca.Cert, nodePair(t, ca, 4)), nil), 1, book.lookup, ack, nil)
	t.Cleanup(func() { _ = liar.Close() })
	before := calls.Load()
	if _, err := liar.Call(within(t, patience), 2, ballot); err == nil || calls.Load() != before {
		t.Errorf("a node was believed to be another: %v", err)
	}
}

func TestCertificatesNotAccepted(t *testing.T) {
	noLeaks(t)
	ca, otherCA := newCA(t, "one"), newCA(t, "two")
	log := &sink{}
	server := open(t, certified(t, "right", ca.Cert, nodePair(t, ca, 1)), log.logger())
	var seen accepted
	go seen.serve(server.Stream(ALPNRaft))
	addr := server.Addr().String()
	both := append(append([]byte(nil), ca.Cert...), otherCA.Cert...)

	// We refuse it.
	_, err := open(t, certified(t, "right", otherCA.Cert, nodePair(t, otherCA, 2)), nil).Dial(t.Context(), addr, ALPNRaft)
	var typed *CertificateError
	if !errors.Is(err, ErrCertificate) || !errors.As(err, &typed) || typed.Addr != addr || typed.ByPeer || typed.Err == nil {
		t.Errorf("by us: %v", err)
	}
	// It refuses us: that shows at the first read. So does the TLS key of the
	// secret, where certificates are asked for.
	for name, id := range map[string]*Identity{
		"other CA":   certified(t, "right", both, nodePair(t, otherCA, 2)),
		"the secret": {accepted: identity(t, "right").accepted, certs: &certificates{roots: certified(t, "right", ca.Cert, nodePair(t, ca, 2)).certs.roots, own: identity(t, "right").accepted[0].cert}},
	} {
		c, err := open(t, id, nil).Dial(t.Context(), addr, ALPNRaft)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		_ = c.SetReadDeadline(time.Now().Add(patience))
		_, err = c.Read(make([]byte, 1))
		if !errors.As(err, &typed) || !typed.ByPeer {
			t.Errorf("%s, by the peer: %v", name, err)
		}
		_ = c.Close()
	}
	// A right certificate with another cluster's secret comes not even so far.
	if _, err := open(t, certified(t, "wrong", ca.Cert, nodePair(t, ca, 2)), nil).Dial(t.Context(), addr, ALPNRaft); !errors.Is(err, ErrWrongSecret) {
		t.Errorf("another secret: %v", err)
	}
	if seen.get() != 0 {
		t.Error("somebody got in")
	}
	r := CheckPeers(within(t, patience), open(t, certified(t, "right", otherCA.Cert, nodePair(t, otherCA, 2)), nil), []string{addr})
	if len(r.Rejected) != 1 || !errors.Is(r.Errors[addr], ErrCertificate) {
		t.Errorf("probe: %+v", r)
	}
}

func TestCertificateFiles(t *testing.T) {
	ca, otherCA := newCA(t, "one"), newCA(t, "two")
	good := nodePair(t, ca, 2)
	named := func(uris ...string) pki.Pair {
		t.Helper()
		u, err := url.Parse(uris[0])
		if err != nil {
			t.Fatal(err)
		}
		pair, err := pki.NewNode(ca, 2, u, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return pair
	}
	for _, tc := range []struct {
		name, says string
		ca         []byte
		pair       pki.Pair
	}{
		{"no CA", "no certificate", nil, good},
		{"CA that is no PEM", "no PEM", []byte("hello"), good},
		{"CA file with a key", "PRIVATE KEY", append(append([]byte(nil), ca.Cert...), ca.Key...), good},
		{"a node's certificate for the CA", "not a CA's", good.Cert, good},
		{"another CA", "own certificate", otherCA.Cert, good},
		{"the key of another", "private key does not match", ca.Cert, pki.Pair{Cert: good.Cert, Key: otherCA.Key}},
		{"no key", "key", ca.Cert, pki.Pair{Cert: good.Cert}},
		{"no node named", "names no node", ca.Cert, named("https://example.org/node/2")},
		{"node 0", "not of the form", ca.Cert, named("aiondb-ha://node/0")},
		{"another spelling", "not of the form", ca.Cert, named("aiondb-ha://node/02")},
		{"another host", "not of the form", ca.Cert, named("aiondb-ha://nodes/2")},
		{"a user in it", "not of the form", ca.Cert, named("aiondb-ha://me@node/2")},
	} {
		_, err := identity(t, "right").WithCertificates(tc.ca, tc.pair.Cert, tc.pair.Key)
		if err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v, want %q in it", tc.name, err, tc.says)
		}
		if err != nil && len(tc.pair.Key) > 100 && strings.Contains(err.Error(), string(tc.pair.Key[30:60])) {
			t.Errorf("%s: the key is in the error", tc.name)
		}
	}
	id := certified(t, "right", append(append([]byte(nil), otherCA.Cert...), ca.Cert...), good)
	info := id.Certificate()
	if info == nil || info.Node != 2 || time.Until(info.NotAfter) > time.Hour || info.Serial == "" || identity(t, "right").Certificate() != nil {
		t.Errorf("%+v", info)
	}
	// Dates are looked at.
	chain, err := id.certs.check(nil, 0, time.Now())
	if err == nil {
		t.Errorf("an empty chain is node %d", chain)
	}
	if _, err := pki.NewNode(pki.Pair{Cert: good.Cert, Key: good.Key}, 3, NodeURI(3), time.Hour); err == nil {
		t.Error("a node signed for another")
	}
}

// TestRaftSpeakers: Raft's messages are taken from the node they name only.
func TestRaftSpeakers(t *testing.T) {
	noLeaks(t)
	ca := newCA(t, "one")
	one := open(t, certified(t, "right", ca.Cert, nodePair(t, ca, 1)), nil)
	tran := NewRaftTransport(one, RaftConfig{Advertise: one.Addr().String(), Logger: hclog.NewNullLogger(), MaxPool: 1})
	defer func() { _ = tran.Close() }()
	taken := make(chan string, 16)
	go func() {
		for {
			select {
			case rpc := <-tran.Consumer():
				taken <- string(rpc.Command.(raft.WithRPCHeader).GetRPCHeader().ID)
				rpc.Respond(&raft.AppendEntriesResponse{Success: true}, nil)
			case <-tran.done:
				return
			}
		}
	}()
	book := &phonebook{}
	book.set(1, one.Addr().String())
	book.set(3, one.Addr().String())
	two := open(t, certified(t, "right", ca.Cert, nodePair(t, ca, 2)), nil)
	from := NewRaftTransport(two, RaftConfig{Advertise: two.Addr().String(), Lookup: book.lookup, Logger: hclog.NewNullLogger(), MaxPool: 1, Timeout: patience})
	defer func() { _ = from.Close() }()
	for _, tc := range []struct {
		id        string
		heartbeat bool
		ok        bool
	}{{"2", false, true}, {"3", false, false}, {"3", true, false}, {"2", true, true}, {"", false, false}, {"2@x", false, false}} {
		request := &raft.AppendEntriesRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: 3, ID: []byte(tc.id), Addr: []byte("x")}, Term: 7}
		if !tc.heartbeat {
			request.PrevLogEntry = 1
		}
		var answer raft.AppendEntriesResponse
		err := from.AppendEntries("1", "", request, &answer)
		if (err == nil) != tc.ok || (!tc.ok && !strings.Contains(err.Error(), "in the name of")) {
			t.Errorf("%+v: %v", tc, err)
		}
		if tc.ok {
			if got := <-taken; got != tc.id {
				t.Errorf("%+v: taken from %s", tc, got)
			}
		}
	}
	select {
	case id := <-taken:
		t.Errorf("taken from %q", id)
	default:
	}
	if err := from.AppendEntries("3", "", &raft.AppendEntriesRequest{}, &raft.AppendEntriesResponse{}); !errors.Is(err, ErrWrongNode) {
		t.Errorf("node 1 in the place of node 3: %v", err)
	}
	if err := from.AppendEntries("9", raft.ServerAddress(one.Addr().String()), &raft.AppendEntriesRequest{}, &raft.AppendEntriesResponse{}); err == nil {
		t.Error("whoever answers was taken for node 9")
	}
}

// TestRenewKeepsAndCloses: open connections stay as long as what they were made
// with is accepted.
func TestRenewKeepsAndCloses(t *testing.T) {
	noLeaks(t)
	ca, nextCA := newCA(t, "one"), newCA(t, "two")
	both := append(append([]byte(nil), ca.Cert...), nextCA.Cert...)
	pair := func(ca pki.Pair) pki.Pair { return nodePair(t, ca, 2) }
	for name, steps := range map[string][]*Identity{
		"secret": {identity(t, "old"), identity(t, "old", "new"), identity(t, "new", "old"), identity(t, "new")},
		"CA": {certified(t, "right", ca.Cert, pair(ca)), certified(t, "right", both, pair(ca)),
			certified(t, "right", both, pair(nextCA)), certified(t, "right", nextCA.Cert, pair(nextCA))},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := open(t, steps[0], nil), open(t, steps[0], nil)
			l := b.Stream(ALPNRaft)
			connect := func() (dialed net.Conn) {
				t.Helper()
				dialed, err := a.Dial(t.Context(), b.Addr().String(), ALPNRaft)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = dialed.Close() })
				c, err := l.Accept()
				if err != nil {
					t.Fatal(err)
				}
				go func() { _, _ = io.Copy(c, c); _ = c.Close() }()
				return dialed
			}
			works := func(c net.Conn) bool {
				_ = c.SetDeadline(time.Now().Add(patience))
				_, err := c.Write([]byte("x"))
				if err == nil {
					_, err = c.Read(make([]byte, 1))
				}
				return err == nil
			}
			var conns []net.Conn
			for i, id := range steps {
				conns = append(conns, connect())
				b.Renew(id) // one after the other
				conns = append(conns, connect())
				a.Renew(id)
				conns = append(conns, connect())
				for n, c := range conns {
					// What began before both had taken the third step was made with what is gone after the last.
					if want := i < len(steps)-1 || n >= 3*(len(steps)-2)+2; works(c) != want {
						t.Errorf("step %d: that connection %d works is not %v", i, n, want)
					}
				}
			}
		})
	}
}

// TestCallsDuringRotation: nodes call each other without a pause while secret
// and certificates are replaced, and no call fails.
func TestCallsDuringRotation(t *testing.T) {
	noLeaks(t)
	const nodes = 3
	ca, nextCA := newCA(t, "one"), newCA(t, "two")
	both := append(append([]byte(nil), ca.Cert...), nextCA.Cert...)
	book := &phonebook{}
	type step func(node protocol.NodeID) *Identity
	with := func(words []string, trusted []byte, ca pki.Pair) step {
		return func(node protocol.NodeID) *Identity {
			pair := nodePair(t, ca, node)
			id, err := identity(t, words...).WithCertificates(trusted, pair.Cert, pair.Key)
			if err != nil {
				t.Fatal(err)
			}
			return id
		}
	}
	steps := []step{
		with([]string{"old"}, ca.Cert, ca), with([]string{"old", "new"}, ca.Cert, ca), with([]string{"new", "old"}, both, ca),
		with([]string{"new"}, both, nextCA), with([]string{"new"}, nextCA.Cert, nextCA),
	}
	var muxes []*Mux
	var messengers []*Messenger
	for i := range nodes {
		node := protocol.NodeID(i + 1)
		m := open(t, steps[0](node), nil)
		s := NewMessenger(m, node, book.lookup, func(context.Context, protocol.NodeID, protocol.Message) (protocol.Message, error) {
			return protocol.ForwardReply{}, nil
		}, nil)
		t.Cleanup(func() { _ = s.Close() })
		book.set(node, m.Addr().String())
		muxes, messengers = append(muxes, m), append(messengers, s)
	}
	ctx, stop := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	defer callers.Wait()
	defer stop()
	var counts [nodes * nodes]atomic.Int64
	for i, s := range messengers {
		for j := range nodes {
			if i == j {
				continue
			}
			callers.Go(func() {
				for ctx.Err() == nil {
					// propose must not be sent twice: a lost answer is an error.
					if _, err := s.Call(ctx, protocol.NodeID(j+1), propose); err != nil && ctx.Err() == nil {
						t.Errorf("from %d to %d: %v", i+1, j+1, err)
						return
					}
					counts[i*nodes+j].Add(1)
				}
			})
		}
	}
	more := func(what string) {
		var before [nodes * nodes]int64
		for i := range counts {
			before[i] = counts[i].Load()
		}
		eventually(t, what, func() bool {
			for i := range counts {
				if i/nodes != i%nodes && counts[i].Load() < before[i]+5 {
					return t.Failed()
				}
			}
			return true
		})
	}
	for i, step := range steps {
		for n, m := range muxes {
			m.Renew(step(protocol.NodeID(n + 1)))
			more(fmt.Sprintf("calls after step %d at node %d", i, n+1))
		}
	}
}
