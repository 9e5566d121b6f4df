package failover

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/aiondb/aiondb-ha/protocol"
)

// A Demote of epoch 5 that failed once is tried again. By then the database may
// be fenced at 7, its position read and the fork of 7 committed: to follow the
// primary of 5 would cut off what that fork says it has (I3).
func TestNoCutBelowTheFence(t *testing.T) {
	inBubble(t, func(b *bench) {
		failures := 1
		b.start()
		time.Sleep(time.Second)
		b.taken()
		b.demote = func(context.Context) error {
			if failures--; failures >= 0 {
				return errors.New("busy")
			}
			return nil
		}
		b.mu.Lock()
		b.history = protocol.History{{Epoch: 5, NodeID: 3, Parent: 0, LSN: 0}}
		b.mu.Unlock()
		b.driver.ForkApplied(protocol.Fork{})
		b.lead()
		time.Sleep(time.Second)
		got := b.taken()
		t.Logf("happened:\n  %s", strings.Join(got, "\n  "))
		fenced := false
		for _, line := range got {
			fenced = fenced || strings.HasPrefix(line, "fence 7")
			if fenced && strings.HasPrefix(line, "demote 5, primary 3") {
				t.Errorf("%q comes after the fence of epoch 7", line)
			}
		}
	})
}
