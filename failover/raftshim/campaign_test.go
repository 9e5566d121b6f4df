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

// The transport refuses for Raft while its own question is under way, and only
// then.
func TestCrossingPreVotes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		trans, peer, addr := received(t, 0)
		peerAddr := peer.LocalAddr()
		trans.Inner.(*raft.InmemTransport).Connect(peerAddr, peer)
		request := func(id string) *raft.RequestPreVoteRequest {
			return &raft.RequestPreVoteRequest{RPCHeader: raft.RPCHeader{ID: []byte(id)}, Term: 7, LastLogIndex: 1, LastLogTerm: 6}
		}
		asked := make(chan error)
		go func() { asked <- trans.RequestPreVote("2", peerAddr, request("1"), &raft.RequestPreVoteResponse{}) }()
		own := <-peer.Consumer()
		var answer raft.RequestPreVoteResponse
		if err := peer.RequestPreVote("1", addr, request("2"), &answer); err != nil || answer.Granted || answer.Term > 6 {
			t.Errorf("while asking itself: %+v, %v", answer, err)
		}
		own.Respond(&raft.RequestPreVoteResponse{Term: 6}, nil) // it had a leader then
		if err := <-asked; err != nil {
			t.Fatal(err)
		}
		go func() { asked <- peer.RequestPreVote("1", addr, request("2"), &answer) }()
		inRaft := <-trans.Consumer()
		inRaft.Respond(&raft.RequestPreVoteResponse{Term: 6, Granted: true}, nil)
		if err := <-asked; err != nil || !answer.Granted {
			t.Errorf("after the own question was refused: %+v, %v", answer, err)
		}
	})
}
