package failover

import (
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aiondb/aiondb-ha/fencing"
	"github.com/aiondb/aiondb-ha/protocol"
)

// fullDisk is a disk in memory that can be full, and fail.
type fullDisk struct {
	mu     sync.Mutex
	files  map[string][]byte
	full   bool
	broken error // of every sync
	tries  int   // of writes
}

func (d *fullDisk) set(full bool, broken error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full, d.broken = full, broken
}

func (d *fullDisk) tried() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.tries
}

func (d *fullDisk) Read(path string, _ int) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if data, there := d.files[path]; there {
		return slices.Clone(data), nil
	}
	return nil, fs.ErrNotExist
}

func (d *fullDisk) WriteTemp(path string, data []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.tries++; d.full {
		return fmt.Errorf("write %s: %w", path, syscall.ENOSPC)
	}
	d.files[path] = slices.Clone(data)
	return nil
}

func (d *fullDisk) SyncFile(string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.broken
}

func (d *fullDisk) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.files[to] = d.files[from]
	delete(d.files, from)
	return nil
}

func (d *fullDisk) SyncDir(path string) error { return d.SyncFile(path) }

func (d *fullDisk) Remove(path string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.files, path)
}

// onDisk gives the bench a floor on d, at epoch 3 of node 2.
func (b *bench) onDisk(d *fullDisk) {
	b.t.Helper()
	floor, err := fencing.OpenFloorOn("fencing.json", d)
	if err == nil {
		err = floor.Create(time.Now())
	}
	if err == nil {
		err = floor.Promise(3, 2, time.Now())
	}
	if err != nil {
		b.t.Fatal(err)
	}
	cfg := b.driver.cfg
	cfg.Floor, b.floor = floor, floor
	if b.driver, err = NewDriver(cfg); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) forked(f protocol.Fork) {
	b.mu.Lock()
	b.history = append(b.history, f)
	b.mu.Unlock()
	b.driver.ForkApplied(f)
}

// A follower whose floor cannot be raised, because the disk is full, follows all
// the same; and raises it as soon as there is room, without being told again.
func TestFloorIsRaisedWhenThereIsRoom(t *testing.T) {
	inBubble(t, func(b *bench) {
		disk := &fullDisk{files: map[string][]byte{}}
		b.onDisk(disk)
		b.start()
		b.taken()
		disk.set(true, nil)
		b.forked(protocol.Fork{Epoch: 5, NodeID: 3})
		b.expect("demote 5, primary 3 \"db-3\", guard open false")
		tries := disk.tried()
		time.Sleep(time.Minute)
		b.expect() // the database is told nothing twice
		if again := disk.tried() - tries; again == 0 || again > int(time.Minute/DefaultBackoffMax) {
			t.Errorf("%d tries in a minute on a full disk", again)
		}
		if b.floor.Current().Epoch != 3 {
			t.Fatalf("floor %+v", b.floor.Current())
		}
		disk.set(false, nil)
		time.Sleep(DefaultBackoffMax)
		b.expect("fence 5, floor 5, barred 5, guard open false")
		if got := b.floor.Current(); got.Epoch != 5 || got.NodeID != 3 {
			t.Errorf("floor %+v", got)
		}
		tries = disk.tried()
		time.Sleep(time.Minute)
		b.expect()
		if disk.tried() != tries {
			t.Error("raised, and tried again")
		}
	})
}

// A ballot that raises the floor higher ends the trying, and so does a disk
// after whose failure nobody knows what is on it.
func TestFloorNeedNotBeRaised(t *testing.T) {
	for name, end := range map[string]func(b *bench, disk *fullDisk){
		"overtaken": func(b *bench, disk *fullDisk) {
			disk.set(false, nil)
			if _, err := b.driver.HandleMessage(b.t.Context(), 2, protocol.BallotRequest{Epoch: 6, CandidateID: 2}); err != nil {
				b.t.Error(err)
			}
		},
		"failed": func(b *bench, disk *fullDisk) {
			disk.set(false, syscall.EIO)
			time.Sleep(DefaultBackoffMax)
		},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(b *bench) {
				disk := &fullDisk{files: map[string][]byte{}}
				b.onDisk(disk)
				b.start()
				disk.set(true, nil)
				b.forked(protocol.Fork{Epoch: 5, NodeID: 3})
				time.Sleep(time.Second)
				end(b, disk)
				b.taken()
				tries := disk.tried()
				time.Sleep(time.Minute)
				b.expect()
				if disk.tried() != tries {
					t.Errorf("%d tries more", disk.tried()-tries)
				}
			})
		})
	}
}
