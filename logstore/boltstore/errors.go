package boltstore

import (
	"errors"
	"fmt"
	"runtime/debug"

	berrors "go.etcd.io/bbolt/errors"

	"github.com/aiondb/aiondb-ha/logstore"
)

func isTimeout(err error) bool { return errors.Is(err, berrors.ErrTimeout) }

// closedAs says in the words of a logstore.Store that the store is closed.
func closedAs(err error) error {
	if errors.Is(err, berrors.ErrDatabaseNotOpen) {
		return logstore.ErrClosed
	}
	return err
}

func damaged(path, reason string) error {
	return &logstore.CorruptionError{File: path, Reason: reason,
		Advice: "take the file from a backup, or let this voter join anew"}
}

func (s *Store) damagedEntry(index uint64, reason string) error {
	return fmt.Errorf("log entry %d: %w", index, damaged(s.path, reason))
}

// guard turns what bbolt does about damaged pages into an error: it panics, or
// follows a page number to where the file does not reach, which is a fault. Use
// it as defer guard(path, &err)().
func guard(path string, err *error) (end func()) {
	before := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(before)
		if p := recover(); p != nil {
			*err = damaged(path, fmt.Sprint(p))
		}
	}
}
