package walplane

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/aiondb/aiondb-ha/protocol"
)

var modelSeed = flag.Uint64("seed", 0, "seed of the model test; 0 draws one")

// plug is a node's disk with a power plug: pulled, nothing more is flushed.
type plug struct {
	mu     sync.Mutex
	pulled bool
	synced int64 // size of the file when it was last flushed
}

func (p *plug) disk() *disk {
	d := realDisk
	d.sync = func(f *os.File) error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.pulled {
			return errors.New("no power")
		}
		if err := f.Sync(); err != nil {
			return err
		}
		info, err := f.Stat()
		if err != nil {
			return err
		}
		p.synced = info.Size()
		return nil
	}
	return &d
}

// acked is a write that was acknowledged, as its writer saw it.
type acked struct {
	Ack
	key, value string
}

// model runs three nodes through what the failover protocol may do to them,
// under write load, and holds the record of what was acknowledged.
type model struct {
	*group
	rng     *rand.Rand
	all     []protocol.NodeID
	epoch   protocol.Epoch
	primary protocol.NodeID // of epoch, if it was promoted
	plugs   map[protocol.NodeID]*plug

	mu    sync.Mutex
	live  []*DB
	acks  []acked
	moved signal
}

func (m *model) boot(id protocol.NodeID) {
	p := &plug{}
	m.plugs[id] = p
	m.tune = func(c *Config) {
		c.disk = p.disk()
		c.PeerTimeout = 200 * time.Millisecond
	}
	m.start(id)
	m.publish()
}

func (m *model) publish() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.live = slices.Collect(maps.Values(m.dbs))
}

// crash cuts the power: of what was not flushed, some part may be on disk.
func (m *model) crash(id protocol.NodeID) {
	p := m.plugs[id]
	if m.rng.IntN(2) == 0 { // kill -9: all that was written is there
		m.stop(id)
		m.publish()
		return
	}
	p.mu.Lock()
	p.pulled = true
	p.mu.Unlock()
	db := m.dbs[id]
	// A primary under load writes once more, into the void.
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	_, _ = db.Put(ctx, "void", make([]byte, 500))
	cancel()
	m.stop(id)
	m.publish()
	path := filepath.Join(m.dir, id.String(), logName)
	raw, err := os.ReadFile(path)
	m.must(err)
	if lost := int64(len(raw)) - p.synced; lost > 0 {
		raw = raw[:p.synced+m.rng.Int64N(lost+1)]
		if tail := raw[p.synced:]; len(tail) > 0 && m.rng.IntN(2) == 0 {
			from := m.rng.IntN(len(tail))
			clear(tail[from : from+m.rng.IntN(len(tail)-from+1)]) // a page that never made it
		}
		m.must(os.WriteFile(path, raw, 0o600))
	}
}

// elect opens a ballot among the nodes given, which must be a quorum, and
// promotes the one with the highest position. It may end half-way.
func (m *model) elect(voters []protocol.NodeID, whole bool) {
	m.epoch++
	m.primary = protocol.NoNode
	m.fence(m.epoch, voters...)
	best := voters[0]
	for _, id := range voters[1:] {
		if m.position(id).Compare(m.position(best)) > 0 {
			best = id
		}
	}
	if !whole {
		switch m.rng.IntN(6) {
		case 0: // nobody came of it
			return
		case 1: // the history has it, but the promotion never happened
			m.fork(m.epoch, best)
			return
		case 2: // promoted, and dead before anybody heard
			m.promote(m.epoch, best)
			m.crash(best)
			return
		}
	}
	m.promote(m.epoch, best)
	m.primary = best
}

func (m *model) step() {
	live := slices.Sorted(maps.Keys(m.dbs))
	m.rng.Shuffle(len(live), func(i, j int) { live[i], live[j] = live[j], live[i] })
	switch m.rng.IntN(12) {
	case 0, 1, 2:
		if quorum := m.voters/2 + 1; len(live) >= quorum {
			m.elect(live[:quorum+m.rng.IntN(len(live)-quorum+1)], false)
			if m.rng.IntN(3) > 0 {
				m.tell(live)
			}
		}
	case 3:
		if len(live) > 0 {
			m.crash(live[0])
		}
	case 4, 5:
		for _, id := range m.all {
			if m.dbs[id] == nil {
				m.boot(id)
				break
			}
		}
	case 6:
		m.net.setCut(m.all[m.rng.IntN(3)], m.all[m.rng.IntN(3)], true)
	case 7:
		for _, a := range m.all {
			for _, b := range m.all {
				m.net.setCut(a, b, false)
			}
		}
	default:
		m.tell(live)
	}
}

// tell tells some or all of the nodes whom to follow.
func (m *model) tell(ids []protocol.NodeID) {
	for _, id := range ids {
		if m.primary == protocol.NoNode || m.rng.IntN(4) == 0 {
			return
		}
		if id != m.primary && m.dbs[id] != nil {
			m.follow(m.epoch, m.primary, id)
		}
	}
}

// load writes to whatever nodes there are until stop, each value once.
func (m *model) load(writer int, seed uint64, stop <-chan struct{}) {
	rng := rand.New(rand.NewPCG(seed, uint64(writer)))
	pace := time.NewTicker(time.Millisecond)
	defer pace.Stop()
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		default:
		}
		m.mu.Lock()
		var db *DB
		if len(m.live) > 0 {
			db = m.live[rng.IntN(len(m.live))]
		}
		m.mu.Unlock()
		if db == nil {
			continue
		}
		key, value := fmt.Sprintf("k%d", rng.IntN(20)), fmt.Sprintf("w%d.%d", writer, i)
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
		a, err := db.Put(ctx, key, []byte(value))
		cancel()
		if errors.Is(err, ErrNotPrimary) {
			<-pace.C // nothing waits for this: it only spares the processor
		}
		if err == nil {
			m.mu.Lock()
			m.acks = append(m.acks, acked{a, key, value})
			m.mu.Unlock()
			m.moved.broadcast()
		}
	}
}

// breathe lets the writers get a few acknowledgements, if they can.
func (m *model) breathe() {
	deadline := time.After(time.Duration(m.rng.IntN(30)) * time.Millisecond)
	for range 5 {
		select {
		case <-m.moved.wait():
		case <-deadline:
			return
		}
	}
}

// check compares what was acknowledged with the committed log of db.
func (m *model) check(db *DB) {
	m.t.Helper()
	log := map[protocol.LSN]record{}
	for _, r := range readAll(m.t, db.wal) {
		log[r.lsn] = r
	}
	for _, a := range m.acks {
		if r := log[a.LSN]; r.epoch != a.Epoch || r.kind != kindPut || string(r.key) != a.key || string(r.value) != a.value {
			m.t.Errorf("acknowledged: %+v; in the log: epoch %d %q=%q", a, r.epoch, r.key, r.value)
		}
	}
}

// Whatever happens, in whatever order: what was acknowledged is in the log of
// the primary that comes of it.
func TestModel(t *testing.T) {
	seed := *modelSeed
	rounds := 6
	if seed != 0 {
		rounds = 1
	} else {
		seed = rand.Uint64()
	}
	if testing.Short() {
		rounds = min(rounds, 3)
	}
	for i := range rounds {
		runModel(t, seed+uint64(i))
		if t.Failed() {
			t.Fatalf("seed %d", seed+uint64(i))
		}
	}
}

func runModel(t *testing.T, seed uint64) {
	m := &model{
		group: newGroup(t, 3), rng: rand.New(rand.NewPCG(seed, 0)),
		all: []protocol.NodeID{1, 2, 3}, plugs: map[protocol.NodeID]*plug{},
	}
	for _, id := range m.all {
		m.boot(id)
	}
	m.elect(m.all, true)
	for _, id := range m.all {
		if id != m.primary {
			m.follow(m.epoch, m.primary, id)
		}
	}
	stop := make(chan struct{})
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() { m.load(w, seed, stop) })
	}
	for range 60 {
		m.step()
		m.breathe()
		if t.Failed() {
			break
		}
	}
	close(stop)
	writers.Wait()
	for _, id := range m.all {
		for _, other := range m.all {
			m.net.setCut(id, other, false)
		}
		if m.dbs[id] == nil {
			m.boot(id)
		}
	}
	m.elect(m.all, true)
	for _, id := range m.all {
		if id != m.primary {
			m.follow(m.epoch, m.primary, id)
		}
	}
	m.put(m.primary, "last", "word")
	m.level(m.primary, 1, 2, 3)
	for _, id := range m.all {
		m.check(m.dbs[id])
	}
	t.Logf("seed %d: %d epochs, %d acknowledged, log at %v", seed, m.epoch, len(m.acks), m.position(m.primary))
	m.stop(1, 2, 3)
}
