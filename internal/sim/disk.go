package sim

import (
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/fencing"
	"github.com/aiondb/aiondb-ha/internal/vfs/memfs"
	"github.com/aiondb/aiondb-ha/logstore"
)

// disk is the disk of a machine: how long a sync takes, or that it does not
// return. What lies on it is kept by each process for itself; a crash copies
// what was durable, and the dead process goes on with an original that nobody
// will ever see again.
type disk struct {
	mu    sync.Mutex
	rng   *rand.Rand
	slow  time.Duration // more per sync
	stuck chan struct{} // closed when it goes on; nil: it is not stuck
	times int           // stuck how many times over
}

// sync waits as long as a sync takes. It does not wait in a dead process.
func (d *disk) sync(p *process) {
	if p.pass() != nil {
		return
	}
	for {
		d.mu.Lock()
		stuck := d.stuck
		d.mu.Unlock()
		if stuck == nil {
			break
		}
		select {
		case <-stuck:
		case <-p.dead:
			return
		}
	}
	d.mu.Lock()
	takes := time.Duration(30+d.rng.IntN(200))*time.Microsecond + d.slow
	d.mu.Unlock()
	_ = p.sleep(takes)
}

// coin decides whether what a crash interrupts had been done.
func (d *disk) coin() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rng.IntN(2) == 0
}

func (d *disk) slowBy(by time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.slow += by
}

func (d *disk) stick() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.times++; d.times == 1 {
		d.stuck = make(chan struct{})
	}
}

func (d *disk) release() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.times--; d.times == 0 {
		close(d.stuck)
		d.stuck = nil
	}
}

func (d *disk) fine() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stuck == nil && d.slow == 0
}

// logs is the reference store on a disk.
type logs struct {
	*logstore.Memory
	p     *process
	since atomic.Int64 // of the write under way, ns of the virtual clock; 0: none
}

// write does what is durable when it returns; a crash meanwhile finds it done,
// or not.
func (s *logs) write(do func() error) (err error) {
	s.since.Store(time.Now().UnixNano())
	defer s.since.Store(0)
	d := s.p.m.disk
	early := d.coin()
	if early {
		err = do()
	}
	d.sync(s.p)
	if !early {
		err = do()
	}
	return err
}

func (s *logs) StoreLogs(entries []*raft.Log) error {
	return s.write(func() error { return s.Memory.StoreLogs(entries) })
}
func (s *logs) StoreLog(entry *raft.Log) error { return s.StoreLogs([]*raft.Log{entry}) }
func (s *logs) DeleteRange(from, to uint64) error {
	return s.write(func() error { return s.Memory.DeleteRange(from, to) })
}
func (s *logs) Set(key, value []byte) error {
	return s.write(func() error { return s.Memory.Set(key, value) })
}
func (s *logs) SetUint64(key []byte, value uint64) error {
	return s.write(func() error { return s.Memory.SetUint64(key, value) })
}

// WriteInFlight implements logstore.Store.
func (s *logs) WriteInFlight() time.Time { return sinceWhen(s.since.Load()) }

func sinceWhen(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	now := time.Now()
	return now.Add(time.Duration(ns - now.UnixNano())) // with a monotonic reading
}

// probe tries the disk now and then while the node leads, as the root package
// does.
func (p *process) probe(every time.Duration) {
	for p.sleep(every) == nil {
		if leader, _ := p.cons.Leader(); leader == p.id {
			p.probing.Store(time.Now().UnixNano())
			p.m.disk.sync(p)
			p.probing.Store(0)
		}
	}
}

// writeInFlight tells since when the oldest write has been waiting.
func (p *process) writeInFlight() time.Time {
	log, probe := p.store.WriteInFlight(), sinceWhen(p.probing.Load())
	if log.IsZero() || !probe.IsZero() && probe.Before(log) {
		return probe
	}
	return log
}

// floorDisk is the disk a floor stands on.
type floorDisk struct {
	p  *process
	fs *memfs.FS
}

var _ fencing.Disk = floorDisk{}

const floorPath = "/fencing.json"

func (d floorDisk) Read(path string, limit int) ([]byte, error) {
	file, err := d.fs.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	size, err := file.Size()
	if err != nil {
		return nil, err
	}
	data := make([]byte, min(size, int64(limit)))
	if _, err := file.ReadAt(data, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return data, nil
}

func (d floorDisk) WriteTemp(path string, data []byte) error {
	d.Remove(path)
	file, err := d.fs.Create(path, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = file.WriteAt(data, 0)
	return err
}

func (d floorDisk) SyncFile(path string) error {
	d.p.m.disk.sync(d.p)
	file, err := d.fs.OpenReadWrite(path)
	if err != nil {
		return err
	}
	defer file.Close()
	return file.Sync()
}

func (d floorDisk) Rename(from, to string) error { return d.fs.Rename(from, to) }

func (d floorDisk) SyncDir(string) error {
	d.p.m.disk.sync(d.p)
	return d.fs.SyncDir("/")
}

func (d floorDisk) Remove(path string) { _ = d.fs.Remove(path) }
