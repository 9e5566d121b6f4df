package failover

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/aiondb/aiondb-ha/protocol"
)

// An epoch that no term of Raft can have reached binds nobody: neither the guard
// nor the floor, nor whom the database follows. Raft is in term 7 here.
func TestIncredibleEpoch(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.start()
		b.lead()
		b.taken()
		for _, epoch := range []protocol.Epoch{7 + maxEpochLead + 1, 1 << 63, 1<<64 - 1} {
			for _, m := range []protocol.Message{
				protocol.BallotRequest{Epoch: epoch, CandidateID: 2, Position: protocol.Position{Timeline: epoch, LSN: 1}},
				protocol.PromoteNotify{Epoch: epoch, NewPrimaryID: 2},
				protocol.DemoteRequest{Epoch: epoch, TargetID: 1},
			} {
				if reply, err := b.driver.HandleMessage(b.t.Context(), 2, m); !errors.Is(err, ErrIncredibleEpoch) {
					t.Errorf("%T of epoch %d: %+v, %v", m, epoch, reply, err)
				}
			}
		}
		b.expect()
		if err := b.guard.Check(7); err != nil || b.floor.Current().Epoch != 7 {
			t.Errorf("guard %v, floor %+v", err, b.floor.Current())
		}
		reply, err := b.driver.HandleMessage(b.t.Context(), 2, protocol.BallotRequest{Epoch: 7 + maxEpochLead, CandidateID: 2,
			Position: protocol.Position{Timeline: 7, LSN: 1000}})
		if answer, is := reply.(protocol.BallotAnswer); err != nil || !is || answer.Floor != 7+maxEpochLead {
			t.Errorf("the highest credible epoch: %+v, %v", reply, err)
		}
	})
}

// A voter whose floor cannot be right does not keep the others from choosing.
func TestIncredibleFloor(t *testing.T) {
	inBubble(t, func(b *bench) {
		b.call = func(_ context.Context, to protocol.NodeID, m protocol.Message) (protocol.Message, error) {
			request, is := m.(protocol.BallotRequest)
			switch {
			case !is:
				return protocol.Ack{}, nil
			case to == 2:
				return protocol.BallotAnswer{Epoch: request.Epoch, VoterID: to, Floor: 1 << 63, Refusal: protocol.BallotStaleEpoch}, nil
			default:
				return protocol.BallotAnswer{Epoch: request.Epoch, VoterID: to, Floor: request.Epoch, AgeUS: protocol.AgeInfinite}, nil
			}
		}
		b.start()
		b.lead()
		time.Sleep(time.Second)
		if status := b.driver.Status(); status.State != Promoted || b.guard.Check(7) != nil {
			t.Errorf("%+v", status)
		}
	})
}
