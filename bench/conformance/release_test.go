package conformance

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft-wal/metadb"
)

// release gives a directory up for raft-wal v0.4.0, whose Close keeps the lock:
// wal-meta.db becomes another file, as it is for another process.
func release(t testing.TB, dir string) {
	t.Helper()
	path := filepath.Join(dir, metadb.FileName)
	b := opened(os.ReadFile(path))(t)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}
