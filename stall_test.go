package ha

import (
	"sync"
	"testing"
	"time"

	"github.com/aiondb/aiondb-ha/internal/clock"
	"github.com/aiondb/aiondb-ha/protocol"
)

// stalling is a mirror that can hold up whoever renews the lease or closes the
// guard: the sender of Raft's heartbeats, its pipelines, and the driver.
type stalling struct {
	mu    sync.Mutex
	holds chan struct{} // nil: does not
}

func (s *stalling) Publish(protocol.Epoch, time.Duration) {
	s.mu.Lock()
	holds := s.holds
	s.mu.Unlock()
	if holds != nil {
		<-holds
	}
}

func (s *stalling) Close() error { return nil }

func (s *stalling) stall() (goOn func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	holds := make(chan struct{})
	s.holds = holds
	return sync.OnceFunc(func() {
		s.mu.Lock()
		s.holds = nil
		s.mu.Unlock()
		close(holds)
	})
}

// Everything of the node stands still, driver and renewals, while the database
// in the same process goes on: its guard says no when the lease is over, before
// another node's says yes.
func TestOurPartStalls(t *testing.T) {
	c := newTestCluster(t)
	old := c.primary(protocol.NoNode)
	guard := c.nodes[old].Guard()
	epoch, _ := guard.Epoch()

	stop, database := make(chan struct{}), sync.WaitGroup{}
	defer database.Wait()
	defer close(stop)
	var mu sync.Mutex
	var lastYes time.Duration // when a Check began that said yes
	database.Go(func() {
		for tick := time.Tick(100 * time.Microsecond); ; {
			select {
			case <-tick:
			case <-stop:
				return
			}
			if asked := clock.Boot(); guard.Check(epoch) == nil {
				mu.Lock()
				lastYes = asked
				mu.Unlock()
			}
		}
	})
	began := clock.Boot()
	goOn := c.mirrors[old].stall()
	defer goOn()
	var firstYes time.Duration // when a Check of another node had said yes
	await(t, "another node speaks", func() bool {
		for id, n := range c.nodes {
			if e, open := n.Guard().Epoch(); id != old && open && e > epoch && n.Guard().Check(e) == nil {
				firstYes = clock.Boot()
				return true
			}
		}
		return false
	})
	if err := guard.Check(epoch); err == nil {
		t.Error("the stalled node speaks beside another")
	}
	mu.Lock()
	if lastYes > firstYes || lastYes < began {
		t.Errorf("stalled at %v, the database went on until %v, another began at %v", began, lastYes, firstYes)
	}
	t.Logf("the database went on for %v, another began after %v", lastYes-began, firstYes-began)
	mu.Unlock()
	goOn()
	await(t, "the node that was stalled follows", func() bool { f := c.dbs[old].following(); return f != protocol.NoNode && f != old })
}
