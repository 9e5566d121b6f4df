package ha

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/failover/raftshim"
	"github.com/aiondb/aiondb-ha/jsonlstore"
)

const (
	// syncsPerTimeout is how many syncs of the disk, of the slow ones, must fit
	// in the time after which a silent leader is given up: heartbeats wait in
	// Raft's main loop while it stores something.
	syncsPerTimeout = 5
	// diskSamples is how many of the latest writes the 99th percentile is of.
	diskSamples = 512
	// diskProbes is how many syncs are measured before the node starts.
	diskProbes = 24
	// diskProbeLimit ends that measurement early on a disk that is slow indeed.
	diskProbeLimit = 2 * time.Second
	// diskLookInterval is how often the measure is compared with the timeout.
	diskLookInterval = 5 * time.Second
)

// writeTimer is the log store, with a watch on how long it takes to make
// something durable, and on the terms that entries must have.
type writeTimer struct {
	*jsonlstore.Store

	mu      sync.Mutex
	samples []time.Duration // the latest diskSamples, in a ring
	next    int
}

var (
	_ raft.LogStore    = (*writeTimer)(nil)
	_ raft.StableStore = (*writeTimer)(nil)
)

// newWriteTimer watches store, and begins with a measurement of its own in dir.
func newWriteTimer(store *jsonlstore.Store, dir string) (*writeTimer, error) {
	d := &writeTimer{Store: store}
	probe := filepath.Join(dir, "fsync-probe") // one that a crash left is overwritten
	f, err := os.OpenFile(probe, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("measuring the disk: %w", err)
	}
	began := time.Now()
	line := make([]byte, 512)
	for i := 0; i < diskProbes && err == nil && time.Since(began) < diskProbeLimit; i++ {
		at := time.Now()
		if _, err = f.Write(line); err == nil {
			err = f.Sync()
		}
		d.note(at)
	}
	if err = errors.Join(err, f.Close(), os.Remove(probe)); err != nil {
		return nil, fmt.Errorf("measuring the disk: %w", err)
	}
	return d, nil
}

// note takes the time since at as that of one write.
func (d *writeTimer) note(at time.Time) {
	took := time.Since(at)
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.samples) < diskSamples {
		d.samples = append(d.samples, took)
		return
	}
	d.samples[d.next] = took
	d.next = (d.next + 1) % diskSamples
}

// p99 returns the 99th percentile of the latest writes, 0 before the first.
func (d *writeTimer) p99() time.Duration {
	d.mu.Lock()
	sorted := slices.Clone(d.samples)
	d.mu.Unlock()
	if len(sorted) == 0 {
		return 0
	}
	slices.Sort(sorted)
	return sorted[len(sorted)*99/100]
}

// StoreLog stores one entry.
func (d *writeTimer) StoreLog(log *raft.Log) error {
	if err := raftshim.KeepTerms(log); err != nil {
		return err
	}
	defer d.note(time.Now())
	return d.Store.StoreLog(log)
}

// StoreLogs stores entries.
func (d *writeTimer) StoreLogs(logs []*raft.Log) error {
	if err := raftshim.KeepTerms(logs...); err != nil {
		return err
	}
	defer d.note(time.Now())
	return d.Store.StoreLogs(logs)
}

// tooSlow says that a disk is too slow for a timeout, "" if it is not.
func tooSlow(p99, timeout time.Duration) string {
	if p99*syncsPerTimeout <= timeout {
		return ""
	}
	return fmt.Sprintf("the disk takes up to %v to make a write durable, and the health check timeout is %v, less than %d times that: "+
		"the primary may be given up for no other reason; set the timeout to %v at least, or use a faster disk",
		p99.Round(100*time.Microsecond), timeout, syncsPerTimeout, (syncsPerTimeout * p99).Round(time.Millisecond))
}

// watchDisk warns when the disk gets too slow for the health check timeout. It
// refuses nothing: a node that does not start is worse than one that may fail
// over once too often.
func (n *Node) watchDisk() {
	ticker := time.NewTicker(diskLookInterval)
	defer ticker.Stop()
	for warned := false; ; {
		slow := tooSlow(n.writes.p99(), n.config.HealthCheckTimeout)
		switch {
		case slow != "" && !warned:
			n.config.Logger.Warn(slow)
		case slow == "" && warned:
			n.config.Logger.Info("the disk is fast enough again", "p99", n.writes.p99())
		}
		warned = slow != ""
		select {
		case <-ticker.C:
		case <-n.life.Done():
			return
		}
	}
}
