package jsonlstore

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"

	"github.com/aiondb/aiondb-ha/logstore"
	"github.com/aiondb/aiondb-ha/logstore/storetest"
)

// TestFullTmpfs fills a real file system to the last byte: the store refuses, keeps
// what it has, and goes on when there is room again.
func TestFullTmpfs(t *testing.T) {
	mount := t.TempDir()
	if err := unix.Mount("tmpfs", mount, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("no tmpfs of our own here (root may mount one): %v", err)
	}
	defer func() {
		if err := unix.Unmount(mount, 0); err != nil {
			t.Error(err)
		}
	}()
	dir := filepath.Join(mount, "node-1")
	s := mustOpen(t, dir)
	ref := logstore.NewMemory()
	ballast := filepath.Join(mount, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	fill := func() (refused int) {
		for index := uint64(1); index < 10_000; index++ {
			last, _ := ref.LastIndex()
			l := &raft.Log{Index: last + 1, Term: 1, Data: make([]byte, 10_000)}
			err := s.StoreLog(l)
			switch {
			case err == nil:
				if err := ref.StoreLog(l); err != nil {
					t.Fatal(err)
				}
			case !errors.Is(err, syscall.ENOSPC) || errors.Is(err, logstore.ErrFailed):
				t.Fatalf("StoreLog on a full disk: %v", err)
			default:
				if refused++; refused == 3 {
					return refused
				}
			}
			if index%uint64(20*stride(5)) != 0 {
				continue
			}
			if d := storetest.Diff(ref, s); d != "" {
				t.Fatal(d)
			}
		}
		t.Fatal("the disk does not get full")
		return 0
	}
	fill()
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	before, _ := ref.LastIndex()
	fill()
	if after, _ := ref.LastIndex(); after < before+50 {
		t.Errorf("with room again, %d entries became %d", before, after)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, dir)
	if d := storetest.Diff(ref, s); d != "" {
		t.Error(d)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
