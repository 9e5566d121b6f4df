package raftshim

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// A node that was away when another got its vote back votes for that one. Raft
// alone refuses it, and where that one has the only log that may win, nobody is
// elected any more.
func TestVoteForWhomThisNodeHoldsForNoVoter(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, all []*machine) {
		leader, away, newcomer := all[0], all[1], all[2]
		id, addr := ServerID(newcomer.trans.local), newcomer.inner.LocalAddr()
		if err := leader.raft.DemoteVoter(id, 0, time.Second).Error(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second) // all have heard of it
		cut := func(m *machine, others ...*machine) {
			for _, o := range others {
				m.inner.Disconnect(o.inner.LocalAddr())
				o.inner.Disconnect(m.inner.LocalAddr())
			}
		}
		cut(away, leader, newcomer)
		if err := leader.raft.AddVoter(id, addr, 0, time.Second).Error(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		cut(leader, newcomer)
		away.inner.Connect(addr, newcomer.inner)
		newcomer.inner.Connect(away.inner.LocalAddr(), away.inner)
		if voters := votersOf(away.raft); len(voters) != 2 {
			t.Fatalf("who was away knows the voters %v", voters)
		}
		for end := time.Now().Add(10 * time.Second); newcomer.raft.State() != raft.Leader; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("nobody is elected: %v", newcomer.raft)
			}
		}
		if got := votersOf(away.raft); len(got) != 3 {
			time.Sleep(time.Second)
			if got = votersOf(away.raft); len(got) != 3 {
				t.Errorf("who was away still knows the voters %v", got)
			}
		}
	})
}

// Only the name under which Raft is asked changes, and only where it would refuse.
func TestEntitled(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, all []*machine) {
		m := all[0]
		for _, test := range []struct{ candidate, want string }{{"2", "2"}, {"9", "1"}, {"nobody", "1"}, {"", ""}} {
			if got := string(m.trans.entitled([]byte(test.candidate))); got != test.want {
				t.Errorf("%q is asked for as %q, want %q", test.candidate, got, test.want)
			}
		}
	})
	trans := NewTransport(func() Inner { _, inner := raft.NewInmemTransport(""); return inner }(), Options{})
	defer trans.Close()
	if got := string(trans.entitled([]byte("9"))); got != "9" {
		t.Errorf("before Raft is there, node 9 is asked for as %q", got)
	}
}
