package logstore_test

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/logstore"
	"github.com/aiondb/aiondb-ha/logstore/storetest"
)

func TestMemoryConforms(t *testing.T) {
	storetest.Run(t, func(testing.TB) logstore.Store { return logstore.NewMemory() })
}

func TestMemoryCloneIsIndependent(t *testing.T) {
	m := logstore.NewMemory()
	if err := m.StoreLog(&raft.Log{Index: 1, Data: []byte("a")}); err != nil {
		t.Fatal(err)
	}
	if err := m.SetUint64([]byte("k"), 1); err != nil {
		t.Fatal(err)
	}
	c := m.Clone()
	if err := m.DeleteRange(1, 1); err != nil {
		t.Fatal(err)
	}
	if err := m.SetUint64([]byte("k"), 2); err != nil {
		t.Fatal(err)
	}
	if last, err := c.LastIndex(); last != 1 || err != nil {
		t.Errorf("LastIndex of the clone = %d, %v", last, err)
	}
	if n, err := c.GetUint64([]byte("k")); n != 1 || err != nil {
		t.Errorf("GetUint64 of the clone = %d, %v", n, err)
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	for _, c := range []struct {
		err  error
		is   error
		text []string
	}{
		{&logstore.CorruptionError{File: "f", Line: 3, Offset: 77, Index: 9, Reason: "bad", Advice: "do this"}, logstore.ErrCorrupt, []string{"f", "line 3", "offset 77", "index 9", "bad", "do this"}},
		{&logstore.InUseError{Dir: "d", Holder: "pid 12"}, logstore.ErrInUse, []string{"d", "pid 12", "stop"}},
		{&logstore.InUseError{Dir: "d"}, logstore.ErrInUse, []string{"another process"}},
		{&logstore.ContiguityError{Expected: 4, Given: 9}, nil, []string{"expected index 4", "given 9"}},
		{&logstore.ContiguityError{Given: 0}, nil, []string{"any from 1"}},
		{&logstore.ContiguityError{Expected: math.MaxUint64, Given: math.MaxUint64}, nil, []string{"last index there is"}},
		{&logstore.MiddleError{First: 1, Last: 9, Min: 3, Max: 4}, logstore.ErrMiddle, []string{"3 to 4", "1 to 9"}},
		{&logstore.VoteError{Term: 5, LastTerm: 5, Given: "a:1"}, logstore.ErrVoted, []string{"term 5", "a:1"}},
		{&logstore.VoteError{Term: 4, LastTerm: 5}, logstore.ErrVoted, []string{"term 5", "term 4"}},
		{&logstore.TooLargeError{What: "entry 7", SizeBytes: 9, Limit: 8}, logstore.ErrTooLarge, []string{"entry 7", "9 bytes", "8"}},
		{&logstore.FailedError{Cause: errors.New("disk gone")}, logstore.ErrFailed, []string{"open it again", "disk gone"}},
	} {
		if c.is != nil && !errors.Is(fmt.Errorf("wrapped: %w", c.err), c.is) {
			t.Errorf("%T is not %v", c.err, c.is)
		}
		for _, want := range c.text {
			if !strings.Contains(c.err.Error(), want) {
				t.Errorf("%q does not say %q", c.err, want)
			}
		}
		if strings.Contains(c.err.Error(), "\n") {
			t.Errorf("%q has more than one line", c.err)
		}
	}
}

func Example() {
	var store logstore.Store = logstore.NewMemory()
	defer store.Close()

	err := store.StoreLogs([]*raft.Log{{Index: 1, Term: 1}, {Index: 2, Term: 1}})
	fmt.Println(err)
	err = store.StoreLog(&raft.Log{Index: 4, Term: 1})
	fmt.Println(err)
	// Output:
	// <nil>
	// log entries are not contiguous: expected index 3, given 4
}

// A Store is everything that hashicorp/raft knows how to use.
var _ raft.CommitTrackingLogStore = logstore.Store(nil)
