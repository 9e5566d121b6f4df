package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/aiondb/aiondb-ha/fencing/leasefile"
	"github.com/aiondb/aiondb-ha/internal/clock"
	"github.com/aiondb/aiondb-ha/internal/democluster"
	"github.com/aiondb/aiondb-ha/protocol"
)

const (
	// leaseReaderEnv makes the test binary a database in a process of its own,
	// that acknowledges by the lease file it names.
	leaseReaderEnv = "AIONDB_E2E_LEASE_FILE"
	// leaseReaderPace is the time between two acknowledgements of it.
	leaseReaderPace = 200 * time.Microsecond
	leaseName       = "lease" // in the state directory
)

// readLease acknowledges as fast as its pace allows, while the page says yes to
// the epoch it names, and writes a line for each: the epoch, and the time before
// it asked. A real database asks for the epoch it was promoted in.
func readLease(path string) int {
	var page *leasefile.Page
	for page == nil {
		var err error
		if page, err = leasefile.Open(path); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, leasefile.ErrNotLeaseFile) {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		time.Sleep(leaseReaderPace)
	}
	for {
		asked := clock.Boot()
		if epoch, there := page.Epoch(); there && page.Check(epoch) == nil {
			if _, err := fmt.Println(uint64(epoch), int64(asked)); err != nil {
				return 0
			}
		}
		time.Sleep(leaseReaderPace)
	}
}

// leaseReader is such a process, as the test sees it.
type leaseReader struct {
	mu   sync.Mutex
	acks []leaseAck
}

type leaseAck struct {
	epoch protocol.Epoch
	at    time.Duration // clock.Boot
}

func startLeaseReader(t *testing.T, path string) *leaseReader {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), leaseReaderEnv+"="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := &leaseReader{}
	var reading sync.WaitGroup
	reading.Go(func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var a leaseAck
			if _, err := fmt.Sscan(lines.Text(), (*uint64)(&a.epoch), (*int64)(&a.at)); err != nil {
				t.Errorf("%q: %v", lines.Text(), err)
				return
			}
			r.mu.Lock()
			r.acks = append(r.acks, a)
			r.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		reading.Wait()
		_ = cmd.Wait()
	})
	return r
}

// of returns the first and the last acknowledgement of epoch, and how many.
func (r *leaseReader) of(epoch protocol.Epoch) (first, last time.Duration, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.acks {
		if a.epoch == epoch {
			if last = a.at; n == 0 {
				first = a.at
			}
			n++
		}
	}
	return first, last, n
}

// A database in a process of its own goes on acknowledging when its node is
// killed or stopped, as far as the lease goes, and not a moment longer than
// another one begins.
func TestDatabaseOutlivesItsNode(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("a lease file takes Linux")
	}
	const rounds = 4
	for name, fault := range map[string]struct {
		do, undo func(*democluster.Cluster, protocol.NodeID) error
	}{
		"killed":  {(*democluster.Cluster).Kill, (*democluster.Cluster).Start},
		"stopped": {(*democluster.Cluster).Pause, (*democluster.Cluster).Resume},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClusterWith(t, democluster.Config{Nodes: 3, Env: []string{"AIONDB_HA_LEASE_FILE=" + leaseName}})
			readers := map[protocol.NodeID]*leaseReader{}
			for _, n := range c.Nodes() {
				readers[n.ID] = startLeaseReader(t, filepath.Join(n.StateDir(), leaseName))
			}
			if err := c.StartAll(); err != nil {
				t.Fatal(err)
			}
			outlived := 0
			for range rounds {
				old := settle(t, c)
				ctx := within(t, time.Minute)
				await := func(what string, condition func() bool) {
					t.Helper()
					for tick := time.Tick(time.Millisecond); !condition(); {
						select {
						case <-tick:
						case <-ctx.Done():
							t.Fatalf("waited in vain: %s", what)
						}
					}
				}
				await("the primary's database acknowledges", func() bool { _, _, n := readers[old.NodeID].of(old.Epoch); return n > 100 })
				if err := fault.do(c, old.NodeID); err != nil {
					t.Fatal(err)
				}
				at := clock.Boot()
				next, err := c.WaitPrimary(ctx, old.Epoch)
				if err != nil {
					t.Fatal(err)
				}
				await("the next primary's database acknowledges", func() bool { _, _, n := readers[next.NodeID].of(next.Epoch); return n > 100 })
				if err := fault.undo(c, old.NodeID); err != nil {
					t.Fatal(err)
				}
				settle(t, c)
				_, last, _ := readers[old.NodeID].of(old.Epoch)
				first, _, _ := readers[next.NodeID].of(next.Epoch)
				if last >= first {
					t.Errorf("epoch %d was acknowledged %v after the first of epoch %d", old.Epoch, last-first, next.Epoch)
				}
				if last > at {
					outlived++
				}
				t.Logf("%s: the old database went on for %v, the next one began after %v", name, (last - at).Round(time.Microsecond), (first - at).Round(time.Microsecond))
			}
			if outlived == 0 {
				t.Error("the database never outlived its node: nothing was tested")
			}
		})
	}
}
