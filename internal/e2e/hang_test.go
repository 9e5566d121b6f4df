package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/aiondb/aiondb-ha/internal/democluster"
	"github.com/aiondb/aiondb-ha/protocol"
)

// diskBytes is how large the file system of a node is that may freeze.
const diskBytes = 64 << 20

// hangNoticed is ten times as long as it takes to replace a primary whose disk
// hangs. By chance somebody writes after a longer while.
const hangNoticed = 15 * time.Second

// freezer gives every node a file system of its own, which can be frozen: then
// no write to it returns, as on a disk that hangs.
type freezer struct {
	t      *testing.T
	dirs   map[protocol.NodeID]string
	frozen map[protocol.NodeID]bool
}

// newFreezer mounts the file systems, or skips the test where that cannot be
// done. They are thawed and unmounted after everything else.
func newFreezer(t *testing.T, c *democluster.Cluster) *freezer {
	t.Helper()
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		t.Skip("freezing a file system takes Linux and root")
	}
	f := &freezer{t: t, dirs: map[protocol.NodeID]string{}, frozen: map[protocol.NodeID]bool{}}
	for _, n := range c.Nodes() {
		image := filepath.Join(t.TempDir(), "disk")
		if err := os.WriteFile(image, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.Truncate(image, diskBytes), os.MkdirAll(n.DataDir, 0o700)); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"mkfs.ext4", "-q", "-F", image}, {"mount", "-o", "loop", image, n.DataDir}} {
			if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
				t.Skipf("no file system to freeze: %v: %v\n%s", args, err, out)
			}
		}
		f.dirs[n.ID] = n.DataDir
		t.Cleanup(func() {
			if out, err := exec.Command("umount", n.DataDir).CombinedOutput(); err != nil {
				t.Errorf("umount: %v\n%s", err, out)
			}
		})
	}
	// A process that waits for a frozen file system cannot be killed.
	t.Cleanup(func() {
		for id := range f.frozen {
			f.thaw(id)
		}
		c.Shutdown(true)
	})
	return f
}

func (f *freezer) freeze(id protocol.NodeID) {
	f.t.Helper()
	f.frozen[id] = true
	if out, err := exec.Command("fsfreeze", "--freeze", f.dirs[id]).CombinedOutput(); err != nil {
		f.t.Fatalf("fsfreeze: %v\n%s", err, out)
	}
}

func (f *freezer) thaw(id protocol.NodeID) {
	f.t.Helper()
	if !f.frozen[id] {
		return
	}
	f.frozen[id] = false
	if out, err := exec.Command("fsfreeze", "--unfreeze", f.dirs[id]).CombinedOutput(); err != nil {
		f.t.Errorf("fsfreeze: %v\n%s", err, out)
	}
}

// The file system under a primary freezes, so that no write to it returns,
// while its process runs on. Another node becomes primary, whether somebody
// writes or nobody does; nothing is lost; and when the disk is back the node
// follows.
func TestHungDisk(t *testing.T) {
	for _, load := range []string{"under load", "idle"} {
		t.Run(load, func(t *testing.T) {
			c := newCluster(t, 3)
			disks := newFreezer(t, c)
			if err := c.StartAll(); err != nil {
				t.Fatal(err)
			}
			primary := settle(t, c)
			ctx := within(t, 2*time.Minute)
			var client *democluster.Client
			if load != "idle" {
				client = newClient(t, c)
				if err := client.WaitAcks(ctx, 100); err != nil {
					t.Fatal(err)
				}
			}
			began := time.Now()
			disks.freeze(primary.NodeID)
			next, err := c.WaitPrimary(within(t, hangNoticed), primary.Epoch)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%s: another primary was seen %v after the disk hung", load, time.Since(began).Round(time.Millisecond))
			if next.Epoch <= primary.Epoch {
				t.Errorf("epoch %d after epoch %d", next.Epoch, primary.Epoch)
			}
			if client != nil {
				if _, err := client.WaitEpoch(ctx, primary.Epoch); err != nil {
					t.Fatal(err)
				}
				gap, _, _ := democluster.Failover(client.Acks(), primary.Epoch)
				t.Logf("%s: %v without an acknowledgement", load, gap.Round(time.Millisecond))
			}
			disks.thaw(primary.NodeID)
			if client != nil {
				if err := client.WaitAcks(ctx, 50); err != nil {
					t.Fatal(err)
				}
				if err := client.Close(); err != nil {
					t.Fatal(err)
				}
			}
			last := settle(t, c)
			if client != nil {
				data, err := c.Dump(ctx, last.NodeID)
				if err != nil {
					t.Fatal(err)
				}
				checkRecord(t, client.Acks(), data)
			}
		})
	}
}
