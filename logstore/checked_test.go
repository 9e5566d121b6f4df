package logstore_test

import (
	"errors"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/logstore"
	"github.com/aiondb/aiondb-ha/logstore/storetest"
)

// careless is a store that keeps Raft's interfaces and nothing beyond: it takes
// any index, deletes any range, and says in its own way that a key is missing.
type careless struct {
	*raft.InmemStore
	closed int
}

func (c *careless) Close() error { c.closed++; return errors.New("it was never mine") }

func (c *careless) Get(key []byte) ([]byte, error) {
	v, err := c.InmemStore.Get(key)
	if err != nil {
		return nil, nil
	}
	return append([]byte{}, v...), nil
}

func (c *careless) Set(key, value []byte) error {
	return c.InmemStore.Set(key, append([]byte{}, value...))
}

func (c *careless) GetLog(index uint64, l *raft.Log) error {
	if err := c.InmemStore.GetLog(index, l); err != nil {
		return errors.Join(errors.New("no luck"), err)
	}
	l.Data, l.Extensions = clone(l.Data), clone(l.Extensions)
	return nil
}

func (c *careless) StoreLogs(logs []*raft.Log) error {
	for _, l := range logs {
		copied := *l
		copied.Data, copied.Extensions = clone(l.Data), clone(l.Extensions)
		if err := c.InmemStore.StoreLogs([]*raft.Log{&copied}); err != nil {
			return err
		}
	}
	return nil
}

func clone(b []byte) []byte {
	if b == nil {
		return nil
	}
	return append([]byte{}, b...)
}

type quietClose struct{ careless }

func (c *quietClose) Close() error { return nil }

func TestCheckedMakesAStore(t *testing.T) {
	storetest.Run(t, func(t testing.TB) logstore.Store {
		return logstore.Checked(&quietClose{careless{InmemStore: raft.NewInmemStore()}})
	})
}

func TestCheckedClose(t *testing.T) {
	raw := &careless{InmemStore: raft.NewInmemStore()}
	s := logstore.Checked(raw)
	for range 3 {
		if err := s.Close(); err == nil || err.Error() != "it was never mine" {
			t.Fatalf("Close: %v", err)
		}
	}
	if raw.closed != 1 {
		t.Fatalf("the store beneath was closed %d times", raw.closed)
	}
	if _, err := logstore.Checked(raw).Keys(); !errors.Is(err, errors.ErrUnsupported) {
		t.Fatalf("Keys of a store that has none: %v", err)
	}
}
