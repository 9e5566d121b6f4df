package logstore

import (
	"io"

	"github.com/hashicorp/raft"
)

// Source is a store that is only read, such as one that is to be copied: a
// Store with Keys is one, and so is a file opened for reading alone. Its
// methods mean what they mean in Store.
type Source interface {
	FirstIndex() (uint64, error)
	LastIndex() (uint64, error)
	GetLog(index uint64, log *raft.Log) error
	Get(key []byte) ([]byte, error)
	KeyLister
	io.Closer
}

// KeyLister is what raft.StableStore lacks: a way to learn which keys are set,
// without which no store can be copied.
type KeyLister interface {
	// Keys returns every stable key that is set, in ascending order of its
	// bytes. They belong to the caller.
	Keys() ([][]byte, error)
}

// Raw is what the stores of other projects offer: Raft's two interfaces and
// Close. Checked makes a Store of it. Set and Get take and give CurrentTerm and
// LastVoteTerm as 8 bytes, big endian, however the store writes them.
type Raw interface {
	raft.LogStore
	raft.StableStore
	io.Closer
}
