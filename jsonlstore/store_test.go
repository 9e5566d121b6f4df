package jsonlstore

import (
	"testing"

	"github.com/aiondb/aiondb-ha/logstore"
	"github.com/aiondb/aiondb-ha/logstore/storetest"
)

func mustOpen(t testing.TB, dir string, opts ...Option) *Store {
	t.Helper()
	s, err := Open(dir, opts...)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return s
}

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t testing.TB) logstore.Store { return mustOpen(t, t.TempDir()) })
	storetest.RunPersistent(t, func(t testing.TB, dir string) logstore.Store { return mustOpen(t, dir) })
}
