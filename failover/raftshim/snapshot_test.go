package raftshim

import (
	"bytes"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/fsm/command"
)

// A snapshot that comes late, behind entries it does not hold, takes nothing
// back.
func TestSnapshotThatComesLate(t *testing.T) {
	inCluster(t, 3, func(t *testing.T, all []*machine) {
		leader, follower := all[0], all[1]
		write := func(n int) {
			t.Helper()
			for range n {
				data, err := command.Encode(command.UpdateConfig{Key: "k", Value: time.Now().String()})
				if err != nil {
					t.Fatal(err)
				}
				if _, _, err := leader.cons.Propose(bounded(t, time.Second), data); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Millisecond)
			}
		}
		write(5)
		taken := leader.raft.Snapshot()
		if err := taken.Error(); err != nil {
			t.Fatal(err)
		}
		meta, data, err := taken.Open()
		if err != nil {
			t.Fatal(err)
		}
		var snapshot bytes.Buffer
		if _, err := snapshot.ReadFrom(data); err != nil {
			t.Fatal(err)
		}
		_ = data.Close()
		write(5)
		time.Sleep(time.Second)
		before := follower.raft.AppliedIndex()
		request := &raft.InstallSnapshotRequest{
			RPCHeader:       raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(leaderOf(leader)), Addr: leader.trans.EncodePeer(raft.ServerID(leaderOf(leader)), leader.inner.LocalAddr())},
			SnapshotVersion: meta.Version, Term: leader.raft.CurrentTerm(), LastLogIndex: meta.Index, LastLogTerm: meta.Term,
			Configuration: raft.EncodeConfiguration(meta.Configuration), ConfigurationIndex: meta.ConfigurationIndex, Size: int64(snapshot.Len())}
		var answer raft.InstallSnapshotResponse
		rest := bytes.NewReader(snapshot.Bytes())
		if err := leader.inner.InstallSnapshot("", follower.inner.LocalAddr(), request, &answer, rest); err != nil || !answer.Success {
			t.Errorf("answered %+v, %v", answer, err)
		}
		if rest.Len() > 0 {
			t.Errorf("%d bytes of it are still on the connection", rest.Len())
		}
		if now := follower.raft.AppliedIndex(); now < before {
			t.Errorf("the follower went back from %d to %d", before, now)
		}
		write(5)
		time.Sleep(time.Second)
		if now := follower.raft.AppliedIndex(); now < before+5 {
			t.Errorf("the follower is at %d, and was at %d before 5 more writes", now, before)
		}
	})
}
