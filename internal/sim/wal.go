package sim

import (
	"slices"

	"github.com/aiondb/aiondb-ha/protocol"
)

// record is one entry of a database's log. Its sum covers everything up to it,
// so two logs that have the same sum at an LSN are the same up to there.
type record struct {
	epoch protocol.Epoch
	sum   uint64
}

// wal is a database's log. LSN n is records[n-1]. What has been handed out is
// never overwritten: a log that was cut is continued in memory of its own.
type wal struct {
	records []record
	lineage protocol.Lineage
}

func chain(before uint64, epoch protocol.Epoch, write uint64) uint64 {
	x := before*0x9E3779B97F4A7C15 ^ uint64(epoch)*0xC2B2AE3D27D4EB4F ^ write
	x ^= x >> 29
	x *= 0xBF58476D1CE4E5B9
	return x ^ x>>32
}

func (w *wal) end() int { return len(w.records) }

// sum returns what the log is up to lsn, which it must reach; 0 for 0.
func (w *wal) sum(lsn int) uint64 {
	if lsn == 0 {
		return 0
	}
	return w.records[lsn-1].sum
}

func (w *wal) position(lsn int) protocol.Position {
	if lsn == 0 {
		return protocol.Position{}
	}
	return protocol.Position{Timeline: w.records[lsn-1].epoch, LSN: protocol.LSN(lsn)}
}

// write adds a record of this log's own.
func (w *wal) write(epoch protocol.Epoch, what uint64) {
	w.take(record{epoch, chain(w.sum(w.end()), epoch, what)})
}

func (w *wal) take(r record) {
	w.records = append(w.records, r)
	if n := len(w.lineage); n == 0 || w.lineage[n-1].Epoch != r.epoch {
		w.lineage = append(w.lineage, protocol.Segment{Epoch: r.epoch})
	}
	w.lineage[len(w.lineage)-1].End = protocol.LSN(len(w.records))
}

// cut shortens the log to the first keep records.
func (w *wal) cut(keep int) {
	w.records = w.records[:keep:keep]
	for len(w.lineage) > 0 && w.lineage[len(w.lineage)-1].End > protocol.LSN(keep) {
		last := len(w.lineage) - 1
		if last > 0 && w.lineage[last-1].End >= protocol.LSN(keep) || keep == 0 {
			w.lineage = w.lineage[:last]
			continue
		}
		w.lineage[last].End = protocol.LSN(keep)
	}
}

// upTo returns the first n records to look at.
func (w *wal) upTo(n int) wal { return wal{records: w.records[:n:n]} }

// copy returns an independent log of the first n records.
func (w *wal) copy(n int) wal {
	out := wal{records: w.records, lineage: slices.Clone(w.lineage)}
	out.cut(n)
	return out
}

// has reports whether the log holds at lsn what sum stands for.
func (w *wal) has(lsn int, sum uint64) bool { return lsn <= w.end() && w.sum(lsn) == sum }
