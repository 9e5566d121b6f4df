package failover

import (
	"context"
	"time"

	"github.com/aiondb/aiondb-ha/fencing"
	"github.com/aiondb/aiondb-ha/protocol"
)

// Database is what an embedding server implements: the data plane, told when
// to promote, to demote and to refuse. Calls come from one goroutine at a time,
// except that Fence and Position may run beside Promote and Demote and beside
// each other; an implementation must be safe for that. Every call has a
// deadline in its context. Fence and Position stand in the path of every
// ballot: they should take milliseconds.
type Database interface {
	// Position returns the timeline of the last record in the node's WAL and
	// its flushed LSN. It must never return more than is durable.
	Position(ctx context.Context) (protocol.Position, error)

	// Fence makes the database refuse every WAL stream and every promotion of
	// an epoch below epoch. When it returns nil, no record of a lower epoch is
	// accepted any more, none is being accepted, and nothing is cut off any
	// more to follow a primary of a lower epoch, in the background neither: the
	// position read next is what the node promises. A primary of a lower
	// epoch acknowledges nothing more. Fence need not be durable: the durable
	// floor is given again at every start, before anything else. It never
	// lowers what an earlier call set.
	Fence(ctx context.Context, epoch protocol.Epoch) error

	// Promote makes the database the primary of p.Epoch. When it returns nil,
	// writes are accepted and acknowledged as long as p.Guard says so. When it
	// returns an error the database is not primary, and will be given Demote.
	// It must fail if a higher epoch was fenced meanwhile, or if the WAL does
	// not end exactly where p.Lineage forks.
	Promote(ctx context.Context, p Promotion) error

	// Demote makes the database a replica: no writes are accepted from now on,
	// and it follows d.Primary as soon as one is named. It is called at start,
	// on losing the primacy, and again whenever another primary, another
	// address of it, or another lineage becomes known. Calling it twice with
	// the same argument changes nothing. After an error it is called again.
	Demote(ctx context.Context, d Demotion) error
}

// WriteStopper is implemented by a Database that can hold back new writes
// while those in flight finish: a planned switchover then loses no client's
// write to an error. Without it, the guard closes at once.
type WriteStopper interface {
	// StopWrites holds back new writes and returns when those in flight are
	// in the WAL and flushed. Held writes wait for ResumeWrites, Demote or
	// their own deadline.
	StopWrites(ctx context.Context) error
	// ResumeWrites takes StopWrites back.
	ResumeWrites()
}

// WriteWatcher is implemented by a Database that can tell that its disk does not
// answer. A primary whose database hangs in a write is of no use, and nobody
// else would notice: clients wait, and heartbeats need no disk.
type WriteWatcher interface {
	// WriteInFlight tells since when the oldest write under way, its sync
	// included, has been waiting for the disk; zero: none is. A node on which that
	// is too long (raftshim.StallLimit) gives the primacy up, and does not stand
	// for it. Only what no healthy disk takes so long for may count: leave out
	// what runs in the background. A primary whose writes fail, for want of room
	// say, may tell that here: since when they have. It waits for nothing, and is
	// asked often.
	WriteInFlight() time.Time
}

// Promotion tells a database that it is primary now.
type Promotion struct {
	Epoch protocol.Epoch
	// Guard is to be asked Check(Epoch) before every acknowledgement and every
	// current read. fencing.ValidFor tells how to say on an answer until when it
	// counts, should it leave late.
	Guard   *fencing.Guard
	Lineage protocol.Lineage // of the new timeline; its last segment is Epoch's own

	// Acknowledging may be called, by any goroutine and more than once, when the
	// database could acknowledge for the first time in this epoch: when a record
	// of the new timeline is on as many nodes as it takes. It never waits. The
	// decision journal then accounts for a failover up to there.
	Acknowledging func()
}

// Demotion tells a database that it is a replica, and of whom.
type Demotion struct {
	// Epoch is the highest epoch known to be promoted or promised.
	Epoch protocol.Epoch
	// Primary is whom to follow; NoNode while nobody is known.
	Primary protocol.NodeID
	// Address is where the primary's database listens, as it registered itself.
	Address string
	// Lineage is that of the primary's timeline: a WAL that differs from it is
	// cut back to their common prefix before it is continued.
	Lineage protocol.Lineage
}
