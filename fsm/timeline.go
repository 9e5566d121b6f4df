package fsm

import (
	"encoding/json"
	"fmt"

	"github.com/aiondb/aiondb-ha/fsm/command"
	"github.com/aiondb/aiondb-ha/protocol"
)

const (
	// ReservedPrefix is where this project keeps what it needs itself in the
	// key-value space. Clients must not be let write there; State does not
	// know who asks and lets everybody.
	ReservedPrefix = "ha/"
	// TimelinePrefix is where the timeline history stands: one key an epoch,
	// its number in 20 digits, its value the protocol.Fork as JSON.
	TimelinePrefix = ReservedPrefix + "timeline/"
)

func timelineKey(e protocol.Epoch) string { return fmt.Sprintf("%s%020d", TimelinePrefix, e) }

// ForkCommand returns the command that commits f to the timeline history. The
// state carries it out only in an entry whose term is f.Epoch: a leader that
// lost its term in the meantime cannot make history.
func ForkCommand(f protocol.Fork) (command.KvWrite, error) {
	if err := checkFork(f); err != nil {
		return command.KvWrite{}, err
	}
	value, err := json.Marshal(f)
	if err != nil {
		return command.KvWrite{}, fmt.Errorf("encode fork: %w", err)
	}
	return command.KvWrite{Key: []byte(timelineKey(f.Epoch)), Value: value}, nil
}

func checkFork(f protocol.Fork) error {
	switch {
	case f.Epoch == 0:
		return fmt.Errorf("epoch 0 is before the first timeline")
	case f.NodeID == protocol.NoNode:
		return fmt.Errorf("timeline %d needs a primary", f.Epoch)
	case f.Parent >= f.Epoch:
		return fmt.Errorf("timeline %d cannot grow from timeline %d, which is not older", f.Epoch, f.Parent)
	}
	return nil
}

// writeTimeline is kvWrite for the keys of the timeline history: each epoch
// may write its own one, once.
func (s *State) writeTimeline(key string, c command.KvWrite) Result {
	if c.Delete {
		return refuse("the timeline history cannot be deleted")
	}
	var f protocol.Fork
	if err := json.Unmarshal(c.Value, &f); err != nil {
		return refuse("%q needs a fork as its value: %v", key, err)
	}
	if err := checkFork(f); err != nil {
		return refuse("%v", err)
	}
	if key != timelineKey(f.Epoch) {
		return refuse("the fork of epoch %d does not belong at %q", f.Epoch, key)
	}
	if old, ok := s.kv.get(key); ok {
		if string(old.data) == string(c.Value) {
			return Result{}
		}
		return refuse("the timeline of epoch %d is written already", f.Epoch)
	}
	if uint64(f.Epoch) != s.term {
		return refuse("the timeline of epoch %d cannot be written in term %d", f.Epoch, s.term)
	}
	if len(s.history) >= MaxForks {
		return refuse("the timeline history holds %d forks, and has no room for more", len(s.history))
	}
	s.kv.put(key, kvValue{data: append([]byte{}, c.Value...), revision: s.index})
	s.history = append(s.history, f)
	return Result{Changed: true}
}
