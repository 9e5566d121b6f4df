package walplane

import (
	"fmt"
	"testing"

	"github.com/aiondb/aiondb-ha/protocol"
)

// BenchmarkPut is a write to one of three nodes over loopback TCP, flushed by a
// quorum: by one client, and by many that share flushes.
func BenchmarkPut(b *testing.B) {
	value := make([]byte, 100)
	for _, clients := range []int{1, 64} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			g := cluster(b, 3)
			g.put(1, "first", "one")
			b.SetParallelism(clients)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := g.dbs[1].Put(b.Context(), "k", value); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

// BenchmarkOpen reads a log of 100,000 records back.
func BenchmarkOpen(b *testing.B) {
	g := newGroup(b, 1)
	g.start(1)
	var records []record
	for i, r := range logOf(1, make100k()...) {
		r.value = make([]byte, 100)
		if r.kind == kindBegin {
			r.value = nil
		}
		if records = append(records, r); i%1000 == 999 {
			g.must(g.dbs[1].wal.append(records))
			records = records[:0]
		}
	}
	size := g.dbs[1].wal.bytes()
	g.stop(1)
	b.SetBytes(size)
	for b.Loop() {
		g.start(1)
		g.stop(1)
	}
}

func make100k() []protocol.Epoch {
	epochs := make([]protocol.Epoch, 100_000)
	for i := range epochs {
		epochs[i] = protocol.Epoch(1 + i/25_000)
	}
	return epochs
}
