package ha

import (
	"context"
	"io/fs"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/aiondb/aiondb-ha/failover/raftshim"
	"github.com/aiondb/aiondb-ha/internal/vfs"
)

const (
	// probeName is the file in the state directory that a leader writes to, to
	// see that its disk still does. It holds nothing of worth.
	probeName = "probe"
	// probesPerLimit is how often within the time after which a disk counts as
	// hung it is tried.
	probesPerLimit = 2
)

// diskProbe writes and syncs a few bytes, over and over, while the node leads.
// A leader whose disk hangs goes on sending heartbeats, which need no disk, and
// with nothing to write nobody would notice that it can write nothing.
//
// It costs two small syncs a second by default, over the same sector of a file
// that does not grow, beside those of the writes themselves. A write that
// fails at once is only told: what the store makes of its own is its business.
type diskProbe struct {
	disk   vfs.FS
	path   string
	every  time.Duration
	needed func() bool
	note   func(began time.Time) // of each write that succeeded; nil: nobody wants to know
	log    hclog.Logger

	since  atomic.Pointer[time.Time] // of the write under way; nil: none
	cancel context.CancelFunc
	ended  chan struct{}
}

func (p *diskProbe) start() {
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel, p.ended = cancel, make(chan struct{})
	go p.run(ctx)
}

// writeInFlight tells since when a write has been waiting for the disk; zero:
// none is.
func (p *diskProbe) writeInFlight() time.Time {
	if since := p.since.Load(); since != nil {
		return *since
	}
	return time.Time{}
}

// Close ends the probe, when the write under way has returned. It may be called
// again.
func (p *diskProbe) Close() error {
	p.cancel()
	<-p.ended
	return nil
}

func (p *diskProbe) run(ctx context.Context) {
	defer close(p.ended)
	var file vfs.File
	defer func() {
		if file != nil {
			_ = file.Close()
		}
	}()
	failing := false
	tick := time.NewTicker(p.every)
	defer tick.Stop()
	for n := byte(0); ; n++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if !p.needed() {
			continue
		}
		now := time.Now()
		p.since.Store(&now)
		err := p.write(&file, n)
		p.since.Store(nil)
		if err == nil && p.note != nil {
			p.note(now)
		}
		if err != nil && !failing {
			p.log.Warn("the disk of the state directory takes no writes", "error", err)
		}
		failing = err != nil
	}
}

// write opens the file if need be, and writes to it.
func (p *diskProbe) write(file *vfs.File, n byte) (err error) {
	if *file == nil {
		const ownerOnly fs.FileMode = 0o600
		if *file, err = p.disk.OpenReadWrite(p.path); err != nil {
			if *file, err = p.disk.Create(p.path, ownerOnly); err != nil {
				*file = nil
				return err
			}
		}
	}
	if _, err := (*file).WriteAt([]byte{'0' + n%10, '\n'}, 0); err != nil {
		return err
	}
	return (*file).Sync()
}

// stallLimit is how long a write may take before the disk counts as hung.
func stallLimit(c Config) time.Duration { return raftshim.StallLimit(c.HealthCheckTimeout) }

// startProbe begins to watch the disk of the state directory.
func (n *Node) startProbe(disk vfs.FS) {
	n.probe = &diskProbe{
		disk:  disk,
		path:  filepath.Join(n.config.StateDir(), probeName),
		note:  n.writes.note,
		every: stallLimit(n.config) / probesPerLimit,
		needed: func() bool {
			leader, _ := n.consensus.Leader()
			return leader == n.config.NodeID
		},
		log: n.config.Logger.Named("disk"),
	}
	n.probe.start()
}

// writeInFlight tells since when the oldest write that this node waits for has
// been waiting: one of the log, of the probe, or of the database. Zero: none.
func (n *Node) writeInFlight() (oldest time.Time) {
	watchers := []func() time.Time{n.store.WriteInFlight, n.probe.writeInFlight}
	if w, is := n.db.(WriteWatcher); is {
		watchers = append(watchers, w.WriteInFlight)
	}
	for _, writeInFlight := range watchers {
		if since := writeInFlight(); !since.IsZero() && (oldest.IsZero() || since.Before(oldest)) {
			oldest = since
		}
	}
	return oldest
}
