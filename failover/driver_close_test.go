package failover

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aiondb/aiondb-ha/fencing"
	"github.com/aiondb/aiondb-ha/protocol"
)

func TestStartAndClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.fenceErr = errors.New("not mounted")
		if err := b.driver.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "not mounted") {
			t.Errorf("started without a fence: %v", err)
		}
		b.fenceErr = nil
		records := b.driver.Subscribe(t.Context())
		b.start()
		if err := b.driver.Start(t.Context()); err == nil {
			t.Error("started twice")
		}
		b.lead()
		b.taken()
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				if err := b.driver.Close(); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		b.expect("demote 7, primary 0 \"\", guard open false")
		if _, err := b.driver.HandleMessage(t.Context(), 2, protocol.Heartbeat{}); !errors.Is(err, ErrClosed) {
			t.Errorf("answers after Close: %v", err)
		}
		if err := b.driver.Switchover(t.Context(), 2); err == nil {
			t.Error("switched over after Close")
		}
		n := 0
		for range records {
			n++
		}
		if n == 0 || len(b.driver.Subscribe(t.Context())) != 0 {
			t.Error("records")
		}
		unstarted := newBench(t)
		if err := unstarted.driver.Close(); err != nil {
			t.Error(err)
		}
		if err := unstarted.driver.Start(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("started after Close: %v", err)
		}
	})
}

// Close does not wait for ever for a database that does not return.
func TestCloseWithHangingDatabase(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		release := make(chan struct{})
		b.promote = func(context.Context) error { <-release; return nil }
		b.start()
		b.lead()
		began := time.Now()
		first, second := b.driver.Close(), b.driver.Close()
		if first == nil || first != second {
			t.Errorf("answers %v, %v", first, second)
		}
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("took %v", took)
		}
		close(release)
		synctest.Wait()
	})
}

func TestDriverConfigValidate(t *testing.T) {
	err := DriverConfig{Timing: Timing{Grace: -1}}.Validate()
	for _, want := range []string{"local node ID", "Raft", "Peers", "Cluster", "Database", "Floor", "Guard", "Grace"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
	if _, err := NewDriver(DriverConfig{}); err == nil {
		t.Error("a driver of nothing")
	}
}

func TestErrors(t *testing.T) {
	for _, err := range []error{&NotPrimaryError{}, &NotPrimaryError{Primary: 2}, &NotPrimaryError{Primary: 2, Address: "db-2"}} {
		if !errors.Is(err, ErrNotPrimary) || !errors.Is(err, fencing.ErrNotPrimary) {
			t.Errorf("%v is not ErrNotPrimary", err)
		}
	}
	for _, err := range []error{&NotLeaderError{}, &NotLeaderError{Leader: 2}} {
		if !errors.Is(err, ErrNotLeader) {
			t.Errorf("%v is not ErrNotLeader", err)
		}
	}
	if text := (&NotPrimaryError{Primary: 2, Address: "db-2"}).Error(); text != "not primary, node 2 at db-2 is" {
		t.Errorf("%q", text)
	}
}
