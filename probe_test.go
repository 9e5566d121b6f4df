package ha

import (
	"io/fs"
	"sync"
	"testing"
	"time"

	"github.com/aiondb/aiondb-ha/internal/vfs"
	"github.com/aiondb/aiondb-ha/protocol"
)

// hungDisk is a file system whose writes can be made to hang. Nothing is lost
// by it: they go on when it lets them.
type hungDisk struct {
	vfs.FS
	mu    sync.Mutex
	hangs chan struct{} // nil: does not
}

func (d *hungDisk) hang() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hangs = make(chan struct{})
}

func (d *hungDisk) goOn() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.hangs != nil {
		close(d.hangs)
		d.hangs = nil
	}
}

func (d *hungDisk) wait() {
	d.mu.Lock()
	hangs := d.hangs
	d.mu.Unlock()
	if hangs != nil {
		<-hangs
	}
}

func (d *hungDisk) OpenReadWrite(name string) (vfs.File, error) {
	f, err := d.FS.OpenReadWrite(name)
	return hungFile{f, d}, err
}

func (d *hungDisk) Create(name string, perm fs.FileMode) (vfs.File, error) {
	f, err := d.FS.Create(name, perm)
	return hungFile{f, d}, err
}

type hungFile struct {
	vfs.File
	d *hungDisk
}

func (f hungFile) Sync() error { f.d.wait(); return f.File.Sync() }

// WriteInFlight makes the model database a WriteWatcher.
func (d *modelDatabase) WriteInFlight() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.writing
}

func (d *modelDatabase) setWriting(since time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.writing = since
}

// A primary whose disk hangs is replaced though nobody writes anything, and one
// whose database says that its disk hangs is too.
func TestHungDisk(t *testing.T) {
	for name, fault := range map[string]func(c *testCluster, id protocol.NodeID) (end func()){
		"of the state directory": func(c *testCluster, id protocol.NodeID) func() {
			c.disks[id].hang()
			return c.disks[id].goOn
		},
		"of the database": func(c *testCluster, id protocol.NodeID) func() {
			c.dbs[id].setWriting(time.Now())
			return func() { c.dbs[id].setWriting(time.Time{}) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newTestCluster(t)
			old := c.primary(protocol.NoNode)
			for _, n := range c.nodes { // from here on nobody writes
				await(t, "the node has registered", func() bool {
					for _, m := range n.Nodes() {
						if m.DatabaseAddress == "" {
							return false
						}
					}
					return true
				})
			}
			epoch := c.nodes[old].Status().Epoch
			end := fault(c, old)
			defer end()
			began := time.Now()
			await(t, "the primary with the hung disk speaks no more", func() bool { return c.nodes[old].Guard().Check(epoch) != nil })
			closed := time.Since(began)
			if c.primary(old); c.nodes[old].Guard().Check(epoch) == nil {
				t.Error("the guard of the old primary is open")
			}
			t.Logf("guard closed after %v, another primary after %v; %v counts as hung", closed, time.Since(began), stallLimit(c.config(old)))
			end() // and now it follows
			await(t, "the old primary follows", func() bool {
				followed := c.dbs[old].following()
				return followed != protocol.NoNode && followed != old
			})
		})
	}
}
