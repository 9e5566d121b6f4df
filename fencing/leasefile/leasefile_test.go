//go:build linux

package leasefile

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/aiondb/aiondb-ha/fencing"
	"github.com/aiondb/aiondb-ha/internal/clock"
	"github.com/aiondb/aiondb-ha/protocol"
)

const patience = 20 * time.Second

func create(t testing.TB, path string, grant time.Duration) *Writer {
	t.Helper()
	w, _, err := Create(path, grant)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(w.Close(), w.Close()); err != nil {
			t.Error(err)
		}
	})
	return w
}

func open(t testing.TB, path string) *Page {
	t.Helper()
	p, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// await waits until condition holds.
func await(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for limit := time.Now().Add(patience); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// A page says what the guard says, whatever is done to that.
func TestPageAgainstGuard(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lease")
	w := create(t, path, time.Hour)
	page := open(t, path)
	random := rand.New(rand.NewPCG(1, 2))
	guard := fencing.NewQuickGuard(clock.Boot, clock.Quick)
	guard.ShowTo(w)
	yes := 0
	for step := range 20_000 {
		epoch := protocol.Epoch(step/50 + random.IntN(3))
		switch random.IntN(6) {
		case 0:
			_ = guard.Open(epoch)
		case 1:
			guard.Extend(epoch, clock.Boot()+time.Duration(random.IntN(3)-1)*time.Hour)
		case 2:
			if random.IntN(4) == 0 {
				guard.Extend(epoch, fencing.NoDeadline)
			}
		case 3:
			if random.IntN(4) == 0 {
				guard.CloseBelow(epoch, nil)
			}
		case 4:
			if random.IntN(8) == 0 {
				guard.Close(nil)
			}
		}
		for e := epoch - min(epoch, 2); e < epoch+3; e++ {
			want, got := guard.Check(e), page.Check(e)
			if got != want {
				t.Fatalf("step %d: the page says %v of epoch %d, the guard %v", step, got, e, want)
			}
			if got == nil {
				yes++
			}
		}
		own, isOpen := guard.Epoch()
		if shown, there := page.Epoch(); shown != own || there != (isOpen && own != 0) {
			t.Fatalf("step %d: the page shows epoch %d, %v, the guard %d, %v", step, shown, there, own, isOpen)
		}
	}
	if yes < 1000 {
		t.Errorf("only %d checks said yes", yes)
	}
}

// A lease that nobody renews any more is over at its deadline, and so is one
// that had none when its writer died.
func TestWriterDies(t *testing.T) {
	for name, deadline := range map[string]func() time.Duration{
		"leased": func() time.Duration { return clock.Boot() + 50*time.Millisecond },
		"alone":  func() time.Duration { return fencing.NoDeadline },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "lease")
			w := create(t, path, 50*time.Millisecond)
			page := open(t, path)
			w.Publish(3, deadline())
			first, err := page.CheckUntil(3)
			if err != nil {
				t.Fatal(err)
			}
			if name == "alone" { // renewed, as long as the writer lives
				await(t, "the lease is renewed", func() bool {
					until, err := page.CheckUntil(3)
					return err == nil && until > first+200*time.Millisecond
				})
				close(w.stop) // nothing is left of it
				<-w.ended
				w.stop = make(chan struct{})
			}
			await(t, "the lease runs out", func() bool { return errors.Is(page.Check(3), fencing.ErrLeaseExpired) })
			if until, _ := page.CheckUntil(3); until != 0 {
				t.Errorf("over, and until %v", until)
			}
		})
	}
}

// What a dead writer has left is shut when the node is started again, before
// anything else.
func TestCreateShutsWhatWasLeft(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lease")
	w, fresh, err := Create(path, time.Hour)
	if err != nil || !fresh {
		t.Fatal(fresh, err)
	}
	page := open(t, path)
	w.Publish(7, clock.Boot()+time.Hour)
	if err := page.Check(7); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Create(path, time.Hour); !errors.Is(err, ErrInUse) {
		t.Errorf("a second writer: %v", err)
	}
	generation := w.lease.generation
	w.file.store(wordSequence, w.file.load(wordSequence)+1) // it dies as it writes
	close(w.stop)
	<-w.ended
	if err := w.file.Close(); err != nil {
		t.Fatal(err)
	}
	if err := page.Check(7); !errors.Is(err, ErrUnwritten) || !errors.Is(err, fencing.ErrNotPrimary) {
		t.Errorf("half written: %v", err)
	}
	next, fresh, err := Create(path, time.Hour)
	if err != nil || fresh {
		t.Fatal(fresh, err)
	}
	defer next.Close()
	if err := page.Check(7); err != fencing.ErrNotPrimary {
		t.Errorf("started again: %v", err)
	}
	if next.lease.generation != generation+1 {
		t.Errorf("generation %d after %d", next.lease.generation, generation)
	}
	next.Publish(8, clock.Boot()+time.Hour)
	if err := page.Check(8); err != nil {
		t.Errorf("the same mapping, a new writer: %v", err)
	}
	if err := next.Close(); err != nil {
		t.Fatal(err)
	}
	next.Publish(9, clock.Boot()+time.Hour)
	for e := range protocol.Epoch(10) {
		if err := page.Check(e); !errors.Is(err, fencing.ErrNotPrimary) {
			t.Errorf("closed: %v of epoch %d", err, e)
		}
	}
}

// Every bit that is used counts, and a page of another boot or clock is refused.
func TestDamage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lease")
	w := create(t, path, time.Hour)
	page := open(t, path)
	w.Publish(7, clock.Boot()+time.Hour)
	for word := range wordBody + 1 {
		if word == wordHead+1 || word == wordHead+2 {
			continue // unused
		}
		good := w.file.load(word)
		for bit := range 64 {
			w.file.store(word, good^1<<bit)
			if err := page.Check(7); !errors.Is(err, fencing.ErrNotPrimary) {
				t.Fatalf("bit %d of word %d turned: %v", bit, word, err)
			}
			if _, err := Open(path); word != wordSequence && !errors.Is(err, ErrNotLeaseFile) {
				t.Fatalf("bit %d of word %d turned: opened, %v", bit, word, err)
			}
		}
		w.file.store(word, good)
	}
	if err := page.Check(7); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(h *host){
		"another boot":      func(h *host) { h.boot[1]++ },
		"another namespace": func(h *host) { h.namespace++ },
	} {
		own, magic, err := thisHost()
		if err != nil {
			t.Fatal(err)
		}
		change(&own)
		w.write(func() {
			for i, word := range own.head(magic) {
				w.file.store(i, word)
			}
		})
		if err := page.Check(7); !errors.Is(err, ErrForeign) || !errors.Is(err, fencing.ErrNotPrimary) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := Open(path); err != nil {
			t.Errorf("%s: not opened: %v", name, err)
		}
	}
}

func TestRefuses(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(file("aim", ""), link); err != nil {
		t.Fatal(err)
	}
	noise := make([]byte, pageBytes)
	for i := range noise {
		noise[i] = byte(i + 1)
	}
	for _, test := range []struct {
		path          string
		opens, writes error // nil: anything
	}{
		{filepath.Join(dir, "missing", "there"), fs.ErrNotExist, fs.ErrNotExist},
		{filepath.Join(dir, "lease"), fs.ErrNotExist, nil},
		{dir, ErrNotLeaseFile, nil},
		{link, nil, nil},
		{file("short", "AIONLEAS"), ErrNotLeaseFile, ErrNotLeaseFile},
		{file("noise", string(noise)), ErrNotLeaseFile, ErrNotLeaseFile},
	} {
		before, _ := os.ReadFile(test.path)
		if _, err := Open(test.path); err == nil || test.opens != nil && !errors.Is(err, test.opens) {
			t.Errorf("open %s: %v", test.path, err)
		}
		w, _, err := Create(test.path, time.Second)
		if err == nil {
			if filepath.Base(test.path) != "lease" {
				t.Errorf("created %s", test.path)
			}
			_ = w.Close()
			continue
		}
		if filepath.Base(test.path) == "lease" || test.writes != nil && !errors.Is(err, test.writes) {
			t.Errorf("create %s: %v", test.path, err)
		}
		if after, _ := os.ReadFile(test.path); string(after) != string(before) {
			t.Errorf("%s was changed", test.path)
		}
	}
	if _, _, err := Create(filepath.Join(dir, "lease"), 0); err == nil {
		t.Error("a grant of nothing")
	}
	info, err := os.Stat(filepath.Join(dir, "lease"))
	if err != nil || info.Mode() != 0o600 || info.Size() != pageBytes {
		t.Errorf("%v, %v", info, err)
	}
	// One whose first start was cut short is begun again.
	if _, fresh, err := Create(file("zeros", string(make([]byte, pageBytes))), time.Second); err != nil || !fresh {
		t.Errorf("a blank page: %v, %v", fresh, err)
	}
}

// Nobody ever sees the epoch of one writing with the deadline of another.
func TestReadsAreWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lease")
	w := create(t, path, time.Hour)
	var readers sync.WaitGroup
	done := make(chan struct{})
	for range 4 {
		page := open(t, path)
		readers.Go(func() {
			var last protocol.Epoch
			for {
				select {
				case <-done:
					return
				default:
				}
				l, _, err := page.read()
				if err != nil && !errors.Is(err, ErrUnwritten) {
					t.Error(err)
					return
				}
				if err == nil && (l.deadline != time.Duration(l.epoch)*3 || l.epoch < last) {
					t.Errorf("epoch %d with deadline %d, after epoch %d", l.epoch, l.deadline, last)
					return
				}
				last = max(last, l.epoch)
			}
		})
	}
	for e := range protocol.Epoch(200_000) {
		w.Publish(e, time.Duration(e)*3)
	}
	close(done)
	readers.Wait()
}

func TestCheckDoesNotAllocate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lease")
	w := create(t, path, time.Hour)
	page := open(t, path)
	w.Publish(7, clock.Boot()+time.Hour)
	if n := testing.AllocsPerRun(1000, func() { _ = page.Check(7); _ = page.Check(6) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkPageCheck(b *testing.B) {
	path := filepath.Join(b.TempDir(), "lease")
	w := create(b, path, time.Hour)
	page := open(b, path)
	w.Publish(7, clock.Boot()+time.Hour)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := page.Check(7); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func BenchmarkPublish(b *testing.B) {
	w := create(b, filepath.Join(b.TempDir(), "lease"), time.Hour)
	b.ReportAllocs()
	for n := range b.N {
		w.Publish(7, time.Duration(n))
	}
}
