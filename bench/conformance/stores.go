// Package conformance runs the suite of logstore/storetest on the stores of
// other projects, as they are and with logstore.Checked on top, and lists in
// one place what each does otherwise: docs/stores.md is that list.
package conformance

import "github.com/aiondb/aiondb-ha/logstore/storetest"

// Listed is a store and what it is known to do otherwise.
type Listed struct {
	Name string // as in the headings of docs/stores.md
	Note string // a sentence or two about it, for that page

	Run        []storetest.Deviation // of storetest.Run, in the order of the suite
	Persistent []storetest.Deviation // of storetest.RunPersistent

	open storetest.OpenDir

	// CannotReopen says why RunPersistent cannot be run at all.
	CannotReopen string
}

// Stores lists every store that the suite is run on, in the order of the page.
func Stores() []Listed {
	return []Listed{
		{
			Name: "jsonlstore", Note: "Package `jsonlstore`.", open: openJSONL,
		},
		{
			Name: "memory", Note: "`logstore.Memory`, the reference.", open: openMemory,
			CannotReopen: "it keeps nothing",
		},
		{
			Name: "raft-boltdb v2.3.1",
			Note: "`github.com/hashicorp/raft-boltdb/v2` as it is. It has no commit index and no `WriteInFlight`.",
			open: openRawBolt, Run: rawBolt(), Persistent: forgetful("it has no commit index, and takes a second vote in a term"),
		},
		{
			Name: "raft-boltdb v2.3.1, checked", Note: "The same below `logstore.Checked`.",
			open: openCheckedBolt, Persistent: forgetful(commitLost),
			Run: []storetest.Deviation{
				{Check: "StableValues", Reason: "a value of no bytes comes back as nil without an error, which is taken for a key that was never set"},
				{Check: "EmptyKey", Reason: noEmptyKey},
			},
		},
		{
			Name: "boltdb, of this module", Note: "`logstore/boltstore`, the same files without raft-boltdb, below `logstore.Checked`: `boltdb:PATH`.",
			open: openBoltstore, Persistent: forgetful(commitLost),
			Run: []storetest.Deviation{{Check: "EmptyKey", Reason: noEmptyKey}},
		},
		{
			Name: "raft-wal v0.4.0",
			Note: "`github.com/hashicorp/raft-wal` as it is. It has no commit index and no `WriteInFlight`. " +
				"After a cut of the tail, a directory that is closed and opened gives \"sealed segment has no index block\" instead of the entries before the cut; " +
				"`walstore.OpenSource`, and so `aiondb-ha log migrate`, still reads all of it.",
			open: openRawWAL, Run: rawWAL(),
			CannotReopen: "its Close keeps the lock on wal-meta.db, and the same process waits for it without end",
		},
		{
			Name: "wal, of this module",
			Note: "`logstore/walstore`, which is raft-wal v0.4.0 with Raft's own numbers in big endian and a Close that gives up the lock, below `logstore.Checked`: `wal:PATH`.",
			open: openWalstore, Run: checkedWAL(),
			Persistent: []storetest.Deviation{
				{Check: "EntriesComeBackExactly", Reason: absentIsEmpty},
				{Check: "RandomAgainstReference", Reason: commitLost + "; and after a cut of the tail raft-wal cannot read what it holds, see above"},
			},
		},
	}
}

const (
	noEmptyKey    = "bbolt has no empty keys: Set fails"
	absentIsEmpty = "absent bytes come back as empty ones and the other way round: nil and empty are one"
	commitLost    = "the commit index is kept in memory and lost at Close"
)

func forgetful(reason string) []storetest.Deviation {
	return []storetest.Deviation{{Check: "RandomAgainstReference", Reason: reason}}
}

func rawBolt() []storetest.Deviation {
	return []storetest.Deviation{
		{Check: "IsMonotonic", Reason: "it is not a raft.MonotonicLogStore: Raft does not empty it before it installs a snapshot, and a hole may stay"},
		{Check: "NilEntryIsRefused", Reason: "it panics"},
		{Check: "Contiguity", Reason: "any index is stored, wherever the log ends"},
		{Check: "AllOrNothing", Reason: "a batch with a gap is stored, gap and all"},
		{Check: "MiddleIsRefused", Reason: "a range out of the middle is deleted, and leaves a hole"},
		{Check: "StableValues", Reason: "GetUint64 of a value of fewer than 8 bytes panics, and of more takes the first 8; a value of no bytes comes back as nil"},
		{Check: "EmptyKey", Reason: noEmptyKey},
		{Check: "CurrentTermNeverGoesDown", Reason: "the term is a value like any other: a lower one, or none at all, is stored"},
		{Check: "VoteTermRemovesCandidate", Reason: "a crash between the two writes of a vote leaves the old candidate in the new term"},
		{Check: "VotesStayGiven", Reason: "a second vote in a term is stored in place of the first"},
		{Check: "CommitIndex", Reason: "it has none"},
		{Check: "RandomAgainstReference", Reason: "for the reasons above"},
		{Check: "Close", Reason: "the error of a closed store is bbolt's \"database not open\""},
	}
}

func rawWAL() []storetest.Deviation {
	return []storetest.Deviation{
		{Check: "MissingKeyIsTheBareText", Reason: "Get of a key that was never set gives nil, and GetUint64 gives 0, without an error"},
		{Check: "NilAndEmptyAreToldApart", Reason: absentIsEmpty},
		{Check: "NilEntryIsRefused", Reason: "it panics"},
		{Check: "Contiguity", Reason: "a gap is refused with an error of its own; index 18446744073709551615 is stored, and nothing can follow it"},
		{Check: "DeleteRange", Reason: "GetLog still gives entries that were deleted from the front, until their segment goes"},
		{Check: "MiddleIsRefused", Reason: "it is refused, with an error of its own"},
		{Check: "StableValues", Reason: "GetUint64 of a value of no bytes is 0 without an error; of 8 bytes that are no number it cannot tell"},
		{Check: "EmptyKey", Reason: noEmptyKey},
		{Check: "OneSetOfKeys", Reason: "a number is 8 bytes in little endian, where everybody else has big endian"},
		{Check: "CurrentTermNeverGoesDown", Reason: "the term is a value like any other: a lower one, or none at all, is stored"},
		{Check: "VoteTermRemovesCandidate", Reason: "a crash between the two writes of a vote leaves the old candidate in the new term; a candidate never set is no bytes without an error"},
		{Check: "VotesStayGiven", Reason: "a second vote in a term is stored in place of the first"},
		{Check: "CommitIndex", Reason: "it has none"},
		{Check: "ReadersBesideWriter", Reason: "as for DeleteRange; and a reader that meets the deletion of its segment gets \"file already closed\""},
		{Check: "RandomAgainstReference", Reason: "for the reasons above"},
		{Check: "Close", Reason: "the error of a closed store is its own \"closed\""},
	}
}

func checkedWAL() []storetest.Deviation {
	return []storetest.Deviation{
		{Check: "NilAndEmptyAreToldApart", Reason: absentIsEmpty},
		{Check: "EmptyKey", Reason: noEmptyKey},
		{Check: "ReadersBesideWriter", Sometimes: true, Reason: "a reader that meets the deletion of its segment gets \"file already closed\" instead of the entry or raft.ErrLogNotFound"},
	}
}
