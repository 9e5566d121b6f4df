package ha

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/aiondb/aiondb-ha/fencing"
	"github.com/aiondb/aiondb-ha/internal/clock"
	"github.com/aiondb/aiondb-ha/protocol"
)

// Everything of the node stands still while the database in the same process
// goes on: its guard says no when the lease is over, before another node's says
// yes, and though nobody closes it. The driver and the sender of heartbeats wait
// for a lock of the database's that they need, and no message comes in.
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
	c.dbs[old].mu.Lock()
	goOn := sync.OnceFunc(c.dbs[old].mu.Unlock)
	defer goOn()
	if err := c.nodes[old].mux.Close(); err != nil {
		t.Fatal(err)
	}
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
	if err := guard.Check(epoch); !errors.Is(err, fencing.ErrLeaseExpired) {
		t.Errorf("the guard of the stalled node, which nobody has closed, says %v", err)
	}
	mu.Lock()
	if lastYes > firstYes || lastYes < began {
		t.Errorf("stalled at %v, the database went on until %v, another began at %v", began, lastYes, firstYes)
	}
	t.Logf("the database went on for %v, another began after %v", lastYes-began, firstYes-began)
	mu.Unlock()
}
