package e2e

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
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
// the epoch it names, and writes a line for each: the epoch, and the times before
// and after it asked. A real database asks for the epoch it was promoted in.
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
			if _, err := fmt.Println(uint64(epoch), int64(asked), int64(clock.Boot())); err != nil {
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

// leaseAck is one acknowledgement. It was right at some moment between the two,
// on clock.Boot.
type leaseAck struct {
	epoch         protocol.Epoch
	asked, answer time.Duration
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
			if _, err := fmt.Sscan(lines.Text(), (*uint64)(&a.epoch), (*int64)(&a.asked), (*int64)(&a.answer)); err != nil {
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

// leaseReaders are the databases of a cluster.
type leaseReaders []*leaseReader

// all returns every acknowledgement so far, by its time.
func (rs leaseReaders) all() (acks []leaseAck) {
	for _, r := range rs {
		r.mu.Lock()
		acks = append(acks, r.acks...)
		r.mu.Unlock()
	}
	slices.SortStableFunc(acks, func(a, b leaseAck) int { return cmp.Compare(a.asked, b.asked) })
	return acks
}

// since waits until something is asked at from or later, and acknowledged,
// in an epoch above old, and returns the first such, and the last before it.
func (rs leaseReaders) since(t *testing.T, from time.Duration, old protocol.Epoch) (first, last leaseAck) {
	t.Helper()
	ctx := within(t, time.Minute)
	for tick := time.Tick(5 * time.Millisecond); ; {
		for _, a := range rs.all() {
			if a.asked >= from && a.epoch > old {
				return a, last
			}
			last = a
		}
		select {
		case <-tick:
		case <-ctx.Done():
			t.Fatalf("nothing is acknowledged after epoch %d", old)
		}
	}
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
			var readers leaseReaders
			for _, n := range c.Nodes() {
				readers = append(readers, startLeaseReader(t, filepath.Join(n.StateDir(), leaseName)))
			}
			if err := c.StartAll(); err != nil {
				t.Fatal(err)
			}
			outlived := 0
			for range rounds {
				settle(t, c)
				current, _ := readers.since(t, clock.Boot(), 0)
				old, err := c.WaitPrimary(within(t, time.Minute), current.epoch-1)
				if err != nil {
					t.Fatal(err)
				}
				if err := fault.do(c, old.NodeID); err != nil {
					t.Fatal(err)
				}
				at := clock.Boot()
				first, last := readers.since(t, 0, old.Epoch)
				if err := fault.undo(c, old.NodeID); err != nil {
					t.Fatal(err)
				}
				settle(t, c) // a node that was stopped has had its chance to speak
				t.Logf("%s: the old database went on for %v, the next one began after %v", name,
					(last.asked - at).Round(time.Microsecond), (first.answer - at).Round(time.Microsecond))
				if last.epoch == old.Epoch && last.asked > at {
					outlived++
				}
			}
			lasts, firsts := map[protocol.Epoch]time.Duration{}, map[protocol.Epoch]time.Duration{}
			for _, a := range readers.all() {
				lasts[a.epoch] = max(lasts[a.epoch], a.asked)
				if first, there := firsts[a.epoch]; !there || a.answer < first {
					firsts[a.epoch] = a.answer
				}
			}
			for older, last := range lasts {
				for newer, first := range firsts {
					if older < newer && last > first {
						t.Errorf("epoch %d was acknowledged %v after epoch %d", older, last-first, newer)
					}
				}
			}
			if outlived == 0 {
				t.Error("the database never outlived its node: nothing was tested")
			}
		})
	}
}
