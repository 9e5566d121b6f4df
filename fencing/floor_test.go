package fencing

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aiondb/aiondb-ha/protocol"
)

var someTime = time.UnixMicro(1795349398708875)

func newFloor(t testing.TB) (*Floor, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fencing.json")
	f, err := OpenFloor(path)
	if err != nil {
		t.Fatal(err)
	}
	if !f.Missing() {
		t.Fatal("a missing file is not reported missing")
	}
	if err := f.Promise(1, 1, someTime); !errors.Is(err, ErrNoFloor) {
		t.Fatalf("a promise without a file: %v", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Fatal("opening or promising made a file")
	}
	if err := f.Create(someTime); err != nil || f.Missing() {
		t.Fatal(err)
	}
	return f, path
}

func TestFloorOfAionDB(t *testing.T) {
	f, err := OpenFloor("testdata/original.json")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := f.Current(), (Token{Epoch: 3, NodeID: 42, TimestampUS: 1795349398708875}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// AionDB's reader ignores fields it does not know and takes ours.
func TestFloorForAionDB(t *testing.T) {
	got := string(appendToken(nil, Token{Epoch: 3, NodeID: 42, TimestampUS: 1795349398708875}))
	original, err := os.ReadFile("testdata/original.json")
	if err != nil {
		t.Fatal(err)
	}
	if prefix := strings.TrimSuffix(string(original), "}") + `,"crc":"`; !strings.HasPrefix(got, prefix) {
		t.Errorf("%q does not begin as the original does, %q", got, prefix)
	}
}

func TestPromise(t *testing.T) {
	f, path := newFloor(t)
	for _, step := range []struct {
		epoch protocol.Epoch
		node  protocol.NodeID
		stale bool
		want  Token
	}{
		{5, 2, false, Token{5, 2, 1795349398708875}},
		{5, 2, false, Token{5, 2, 1795349398708875}},
		{5, 3, true, Token{5, 2, 1795349398708875}}, // I1
		{4, 2, true, Token{5, 2, 1795349398708875}}, // I2
		{6, 3, false, Token{6, 3, 1795349398708875}},
		{1<<64 - 1, 3, false, Token{1<<64 - 1, 3, 1795349398708875}},
	} {
		err := f.Promise(step.epoch, step.node, someTime)
		if errors.Is(err, ErrStaleEpoch) != step.stale || err != nil && !step.stale {
			t.Errorf("promise %d to %d: %v", step.epoch, step.node, err)
		}
		reopened, err := OpenFloor(path)
		if err != nil {
			t.Fatal(err)
		}
		if f.Current() != step.want || reopened.Current() != step.want {
			t.Errorf("after %d to %d: in memory %+v, on disk %+v, want %+v", step.epoch, step.node, f.Current(), reopened.Current(), step.want)
		}
	}
	var stale *StaleEpochError
	if err := f.Promise(2, 9, someTime); !errors.As(err, &stale) || stale.Epoch != 2 || stale.Node != 9 || stale.Floor.NodeID != 3 {
		t.Errorf("got %v", err)
	}
	for _, bad := range []error{f.Promise(0, 1, someTime), f.Promise(7, 0, someTime)} {
		if bad == nil || errors.Is(bad, ErrStaleEpoch) {
			t.Errorf("epoch 0 or node 0: %v", bad)
		}
	}
	if left, _ := filepath.Glob(path + ".*"); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestFloorDamaged(t *testing.T) {
	good := string(appendToken(nil, Token{Epoch: 12, NodeID: 3, TimestampUS: 99}))
	cases := map[string]string{
		"empty":              "",
		"blank":              " \n",
		"truncated":          good[:len(good)/2],
		"no end":             strings.TrimSuffix(good, "}\n"),
		"checksum":           strings.Replace(good, ":12", ":13", 1),
		"checksum moved":     strings.Replace(good, `{"epoch"`, `{ "epoch"`, 1),
		"not JSON":           "epoch 3",
		"a list":             "[1]",
		"null":               "null",
		"NULs":               strings.Repeat("\x00", 80),
		"unknown field":      `{"epoch":3,"node_id":42,"timestamp_us":1,"quorum":2}`,
		"other case":         `{"Epoch":3,"node_id":42,"timestamp_us":1}`,
		"twice":              `{"epoch":3,"epoch":2,"node_id":42,"timestamp_us":1}`,
		"missing epoch":      `{"node_id":42,"timestamp_us":1}`,
		"missing node":       `{"epoch":3,"timestamp_us":1}`,
		"missing time":       `{"epoch":3,"node_id":42}`,
		"negative":           `{"epoch":-3,"node_id":42,"timestamp_us":1}`,
		"a fraction":         `{"epoch":3.5,"node_id":42,"timestamp_us":1}`,
		"an exponent":        `{"epoch":3e2,"node_id":42,"timestamp_us":1}`,
		"too large":          `{"epoch":18446744073709551616,"node_id":42,"timestamp_us":1}`,
		"text":               `{"epoch":"3","node_id":42,"timestamp_us":1}`,
		"nested":             `{"epoch":{"a":1},"node_id":42,"timestamp_us":1}`,
		"nobody":             `{"epoch":3,"node_id":0,"timestamp_us":1}`,
		"two objects":        `{"epoch":3,"node_id":42,"timestamp_us":1}{}`,
		"crc is a number":    `{"epoch":3,"node_id":42,"timestamp_us":1,"crc":7}`,
		"crc of another one": `{"epoch":3,"node_id":42,"timestamp_us":1,"crc":"00000000"}`,
		"huge":               `{"epoch":3,"node_id":42,"timestamp_us":1}` + strings.Repeat(" ", MaxTokenBytes),
	}
	for name, content := range cases {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "fencing.json")
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			f, err := OpenFloor(path)
			var corrupt *CorruptError
			if f != nil || !errors.Is(err, ErrCorrupt) || !errors.As(err, &corrupt) || corrupt.Path != path {
				t.Fatalf("opened: %v, %v", f, err)
			}
			if text := err.Error(); strings.Contains(text, "\n") || !strings.Contains(text, path) {
				t.Errorf("not one line that names the file: %q", text)
			}
			entries, _ := os.ReadDir(dir)
			if now, _ := os.ReadFile(path); string(now) != content || len(entries) != 1 {
				t.Error("opening changed something on disk")
			}
		})
	}
}

func TestFloorThatCannotBeRead(t *testing.T) {
	if f, err := OpenFloor(t.TempDir()); err == nil {
		t.Errorf("a directory opened as %+v", f.Current())
	}
}

// Every single byte of a written token matters: none may be changed or cut.
func TestFloorEveryByte(t *testing.T) {
	token := Token{Epoch: 1234567, NodeID: 3, TimestampUS: 99}
	good := appendToken(nil, token)
	for i := range len(good) - 1 { // the line feed at the end carries nothing
		for _, bad := range [][]byte{good[:i], append(append(bytes.Clone(good[:i]), good[i]^1), good[i+1:]...)} {
			if got, err := parseToken(bad); err == nil && got != token {
				t.Errorf("%q is taken for %+v", bad, got)
			}
		}
	}
}

// faultyFS is a disk whose n-th step fails. It remembers which content of
// which file has been made durable.
type faultyFS struct {
	osDisk
	step, failAt int
	trace        []string
}

var errDisk = errors.New("input/output error")

func (d *faultyFS) fails(what string) error {
	d.trace = append(d.trace, what)
	d.step++
	if d.step == d.failAt {
		return errDisk
	}
	return nil
}

func (d *faultyFS) WriteTemp(path string, data []byte) error {
	if err := d.fails("write"); err != nil {
		_ = d.osDisk.WriteTemp(path, data[:len(data)/2])
		return err
	}
	return d.osDisk.WriteTemp(path, data)
}
func (d *faultyFS) SyncFile(path string) error {
	if err := d.fails("sync file"); err != nil {
		return err
	}
	return d.osDisk.SyncFile(path)
}
func (d *faultyFS) Rename(from, to string) error {
	if err := d.fails("rename"); err != nil {
		return err
	}
	return d.osDisk.Rename(from, to)
}
func (d *faultyFS) SyncDir(file string) error {
	if err := d.fails("sync directory"); err != nil {
		return err
	}
	return d.osDisk.SyncDir(file)
}

func TestPromiseIsDurableInOrder(t *testing.T) {
	_, path := newFloor(t)
	disk := &faultyFS{}
	f, err := OpenFloorOn(path, disk)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Promise(1, 1, someTime); err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(disk.trace), "[write sync file rename sync directory]"; got != want {
		t.Errorf("steps %s, want %s", got, want)
	}
}

// A promise that is found in the file may not be durable yet: whoever made it
// may have died before the last sync.
func TestPromiseFoundIsSynced(t *testing.T) {
	_, path := newFloor(t)
	disk := &faultyFS{}
	for _, want := range []string{"[write sync file rename sync directory]", "[sync file sync directory]"} {
		disk.trace = nil
		f, err := OpenFloorOn(path, disk)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := f.Promise(1, 1, someTime); err != nil {
				t.Fatal(err)
			}
		}
		if got := fmt.Sprint(disk.trace); got != want {
			t.Errorf("steps %s, want %s", got, want)
		}
	}
	disk.step, disk.failAt = 0, 2
	f, err := OpenFloorOn(path, disk)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := f.Promise(1, 1, someTime); !errors.Is(err, errDisk) || !errors.Is(err, ErrFloorFailed) {
			t.Errorf("with a directory that cannot be synced: %v", err)
		}
	}
}

func TestPromiseOnFailingDisk(t *testing.T) {
	for failAt, name := range map[int]string{1: "write", 2: "sync file", 3: "rename", 4: "sync directory"} {
		t.Run(name, func(t *testing.T) {
			_, path := newFloor(t)
			disk := &faultyFS{}
			f, err := OpenFloorOn(path, disk)
			if err != nil {
				t.Fatal(err)
			}
			if err := f.Promise(4, 1, someTime); err != nil {
				t.Fatal(err)
			}
			disk.step, disk.failAt = 0, failAt
			if err := f.Promise(5, 2, someTime); !errors.Is(err, errDisk) {
				t.Fatalf("a promise the disk did not keep: %v", err)
			}
			if f.Current().Epoch != 4 {
				t.Errorf("promised %d in memory", f.Current().Epoch)
			}
			// A full disk is no lasting harm; a failed sync or rename is.
			err = f.Promise(6, 3, someTime)
			if latched := errors.Is(err, ErrFloorFailed); latched != (failAt > 1) || err != nil && !latched {
				t.Errorf("the promise after: %v", err)
			}
			reopened, err := OpenFloor(path)
			if err != nil {
				t.Fatal(err)
			}
			if got := reopened.Current().Epoch; got < 4 {
				t.Errorf("after a restart the floor is %d", got)
			}
		})
	}
}

// Two candidates of each epoch ask at once: one at most is promised it (I1),
// and the floor never goes down (I2).
func TestPromiseConcurrently(t *testing.T) {
	f, _ := newFloor(t)
	var mu sync.Mutex
	promised := map[protocol.Epoch]map[protocol.NodeID]bool{}
	var all sync.WaitGroup
	for node := protocol.NodeID(1); node <= 4; node++ {
		all.Go(func() {
			for epoch := protocol.Epoch(1); epoch <= 25; epoch++ {
				before := f.Current().Epoch
				err := f.Promise(epoch, node, someTime)
				if after := f.Current().Epoch; after < before {
					t.Errorf("the floor went from %d to %d", before, after)
				}
				if err == nil {
					mu.Lock()
					if promised[epoch] == nil {
						promised[epoch] = map[protocol.NodeID]bool{}
					}
					promised[epoch][node] = true
					mu.Unlock()
				}
			}
		})
	}
	all.Wait()
	for epoch, nodes := range promised {
		if len(nodes) > 1 {
			t.Errorf("epoch %d is promised to %v", epoch, nodes)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	original, _ := os.ReadFile("testdata/original.json")
	f.Add(original)
	f.Add(appendToken(nil, Token{Epoch: 1, NodeID: 2, TimestampUS: 3}))
	f.Add([]byte(`{"epoch":3,"node_id":42,"timestamp_us":1,"crc":""}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		token, err := parseToken(raw)
		if err != nil {
			return
		}
		again, err := parseToken(appendToken(nil, token))
		if err != nil || again != token {
			t.Errorf("%q is %+v, and written again %+v, %v", raw, token, again, err)
		}
	})
}
