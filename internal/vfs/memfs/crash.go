package memfs

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/aiondb/aiondb-ha/internal/vfs"
)

// Loss decides what becomes of each change that was not synced. keep is asked
// once for each, in the same order for the same history: for every sector of
// every write, for the end of what a write made longer, for every truncation
// and for every change of a name.
type Loss interface{ Keep() bool }

type constant bool

func (c constant) Keep() bool { return bool(c) }

// The two ends: the process died and the machine did not; and the power went
// before the disk had written anything that was not synced.
const (
	LoseNothing    = constant(true)
	LoseEverything = constant(false)
)

type random struct{ rng *rand.Rand }

func (r random) Keep() bool { return r.rng.IntN(2) == 0 }

// LoseRandomly keeps each change with the toss of a coin.
func LoseRandomly(seed uint64) Loss { return random{rand.New(rand.NewPCG(seed, 1))} }

// Subset keeps the n-th change asked about if bit n is set, and counts in N
// how many were asked about.
type Subset struct {
	Bits uint64
	N    int
}

// Keep implements Loss.
func (s *Subset) Keep() bool {
	s.N++
	return s.Bits>>(s.N-1)&1 == 1
}

// CrashClone returns the file system as a disk may have it after power loss at
// this moment. m goes on as if nothing had happened. Locks are gone.
func (m *FS) CrashClone(loss Loss) *FS {
	m.mu.Lock()
	defer m.mu.Unlock()
	names := make(map[string]*node, len(m.durable))
	for name, n := range m.durable {
		names[name] = n
	}
	for _, op := range m.pending {
		if loss.Keep() {
			apply(names, op)
		}
	}
	after := New()
	clones := make(map[*node]*node)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		n := names[name]
		if name != "/" && after.seen[parent(name)] == nil {
			continue // in a directory whose own name was lost
		}
		c := clones[n]
		if c == nil {
			c = &node{dir: n.dir, perm: n.perm}
			if !n.dir {
				c.seen = n.crash(loss)
				c.durable = slices.Clone(c.seen)
			}
			clones[n] = c
		}
		after.seen[name], after.durable[name] = c, c
	}
	return after
}

func parent(name string) string {
	i := strings.LastIndexByte(name, '/')
	return name[:max(i, 1)]
}

// crash returns the bytes of a file after power loss.
func (n *node) crash(loss Loss) []byte {
	data := slices.Clone(n.durable)
	for _, w := range n.writes {
		if w.data == nil {
			if loss.Keep() {
				data = w.apply(data)
			}
			continue
		}
		data = w.crash(data, loss)
	}
	return data
}

// crash applies the sectors of a write that were not lost. The length of the
// file is a change of its own: it may have grown though the sectors at its end were lost
// (they are zeros then), or reach only to the last sector that was not.
func (w write) crash(data []byte, loss Loss) []byte {
	end := w.at + int64(len(w.data))
	for from := w.at; from < end; {
		to := min(end, (from/vfs.SectorSize+1)*vfs.SectorSize)
		if loss.Keep() {
			data = write{at: from, data: w.data[from-w.at : to-w.at]}.apply(data)
		}
		from = to
	}
	if int64(len(data)) < end && loss.Keep() {
		data = append(data, make([]byte, end-int64(len(data)))...)
	}
	return data
}

// Restart has the machine go on after it stopped as if only the process had died:
// what was not synced is still to be seen, and still not on disk. Locks are gone,
// the hook is, too, and operations are counted from 1 again.
func (m *FS) Restart() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.crashed, m.ops, m.Hook = false, 0, nil
	clear(m.locks)
}
