package raftshim

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// Of two nodes that ask each other at once, exactly one is not granted.
func TestOneOfTwoCampaignsGoesFirst(t *testing.T) {
	ask := func(id string, index, logTerm uint64) *raft.RequestPreVoteRequest {
		return &raft.RequestPreVoteRequest{RPCHeader: raft.RPCHeader{ID: []byte(id)}, Term: 7, LastLogIndex: index, LastLogTerm: logTerm}
	}
	for _, c := range []struct {
		one, two *raft.RequestPreVoteRequest
		oneFirst bool
	}{
		{ask("1", 10, 6), ask("2", 10, 6), true}, // the lower ID
		{ask("1", 10, 6), ask("2", 11, 6), false},
		{ask("1", 11, 6), ask("2", 10, 6), true},
		{ask("1", 11, 5), ask("2", 10, 6), false},
	} {
		synctest.Test(t, func(t *testing.T) {
			var one, two campaigns
			if one.goesFirst(1, c.two) || two.goesFirst(2, c.one) {
				t.Error("stands before anybody without having asked")
			}
			answered := one.ask("2", c.one)
			two.ask("1", c.two)
			if one.goesFirst(1, c.two) != c.oneFirst || two.goesFirst(2, c.one) == c.oneFirst {
				t.Errorf("%+v against %+v", c.one, c.two)
			}
			later := *c.two
			later.Term++
			if one.goesFirst(1, &later) {
				t.Error("of another term")
			}
			answered(true)
			if one.goesFirst(1, c.two) != c.oneFirst {
				t.Error("granted, and about to be elected")
			}
			answered(false)
			if one.goesFirst(1, c.two) {
				t.Error("refused, and still in the way")
			}
			one.ask("2", c.one)
			time.Sleep(2 * questionHolds)
			if one.goesFirst(1, c.two) {
				t.Error("never answered, and still in the way")
			}
		})
	}
}

// The transport refuses for Raft if its own question is granted, and only then.
func TestCrossingPreVotes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		trans, peer, addr := received(t, 0)
		peerAddr := peer.LocalAddr()
		trans.Inner.(*raft.InmemTransport).Connect(peerAddr, peer)
		request := func(id string) *raft.RequestPreVoteRequest {
			return &raft.RequestPreVoteRequest{RPCHeader: raft.RPCHeader{ID: []byte(id)}, Term: 7, LastLogIndex: 1, LastLogTerm: 6}
		}
		asked := make(chan error)
		ask := func(from raft.WithPreVote, id string, at raft.ServerAddress, answer *raft.RequestPreVoteResponse) {
			go func() {
				asked <- from.RequestPreVote("2", at, request(id), answer)
			}()
		}
		var mine, theirs raft.RequestPreVoteResponse

		// The own question is refused: the other had not noticed yet. So it stands itself.
		ask(trans, "1", peerAddr, &mine)
		own := <-peer.Consumer()
		ask(peer, "2", addr, &theirs)
		synctest.Wait()
		select {
		case <-trans.Consumer():
			t.Fatal("Raft is given a question that crosses an own one")
		case <-asked:
			t.Fatal("answered before the own question was")
		default:
		}
		own.Respond(&raft.RequestPreVoteResponse{Term: 6}, nil)
		inRaft := <-trans.Consumer()
		inRaft.Respond(&raft.RequestPreVoteResponse{Term: 6, Granted: true}, nil)
		for range 2 {
			if err := <-asked; err != nil {
				t.Fatal(err)
			}
		}
		if mine.Granted || !theirs.Granted {
			t.Errorf("mine %+v, theirs %+v", mine, theirs)
		}

		// It is granted: the other is refused, and votes for this node.
		mine, theirs = raft.RequestPreVoteResponse{}, raft.RequestPreVoteResponse{}
		ask(trans, "1", peerAddr, &mine)
		own = <-peer.Consumer()
		ask(peer, "2", addr, &theirs)
		synctest.Wait()
		own.Respond(&raft.RequestPreVoteResponse{Term: 6, Granted: true}, nil)
		for range 2 {
			if err := <-asked; err != nil {
				t.Fatal(err)
			}
		}
		if !mine.Granted || theirs.Granted || theirs.Term > 6 {
			t.Errorf("mine %+v, theirs %+v", mine, theirs)
		}

		// It is not answered at all: the other is not kept waiting for ever.
		ask(trans, "1", peerAddr, &mine)
		own = <-peer.Consumer()
		began := time.Now()
		ask(peer, "2", addr, &theirs)
		inRaft = <-trans.Consumer()
		inRaft.Respond(&raft.RequestPreVoteResponse{Term: 6, Granted: true}, nil)
		if waited := time.Since(began); waited > 2*questionHolds {
			t.Errorf("waited %v", waited)
		}
		own.Respond(&raft.RequestPreVoteResponse{Term: 6}, nil)
		<-asked
		<-asked
	})
}
