package boltstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/hashicorp/go-msgpack/v2/codec"
	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"

	"github.com/aiondb/aiondb-ha/logstore"
)

const (
	filePerm = 0o600

	// lockWait bounds the wait for a file that another process has open.
	lockWait = 200 * time.Millisecond

	indexBytes = 8 // of a key in the bucket of entries
)

func logsBucket() []byte { return []byte("logs") }
func confBucket() []byte { return []byte("conf") }

// ErrNotRaft is wrapped when a file is a bbolt database of some other program.
var ErrNotRaft = errors.New("not a database of raft-boltdb")

// Options says how a file is opened. The zero value opens it for reading and
// writing and makes it if it is not there.
type Options struct {
	// ReadOnly changes nothing in the file, not even what a crash left in it, and
	// trusts nothing in it: its pages are looked at before they are followed.
	// The file must exist. Others may read it at the same time, nobody may
	// write.
	ReadOnly bool

	// NoSync leaves out the syncs to disk until Sync or Close: for a file that
	// is worthless until it is complete.
	NoSync bool
}

// Store is an open file. It is safe for concurrent use. Open makes one, Close
// gives the file up.
type Store struct {
	path   string
	db     *bbolt.DB
	noSync bool
	read   codec.MsgpackHandle // takes both forms of time
	write  codec.MsgpackHandle
}

var (
	_ logstore.Raw    = (*Store)(nil)
	_ logstore.Source = (*Store)(nil)
)

// Open opens the file at path. Errors wrap *logstore.InUseError if another
// process has it open, fs.ErrNotExist, ErrNotRaft, or logstore.ErrCorrupt for a
// file that is no whole bbolt database.
func Open(path string, o Options) (*Store, error) {
	if o.ReadOnly {
		if err := checkFile(path); err != nil {
			return nil, err
		}
	}
	db, err := openBolt(path, o)
	if err != nil {
		return nil, err
	}
	s := &Store{path: path, db: db, noSync: o.NoSync}
	// The form of time that go-msgpack had first, and that raft-boltdb v2 writes by
	// default. Reading with it set takes that form alone.
	s.write.TimeNotBuiltin = true
	if err := s.buckets(o.ReadOnly); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

// checkFile refuses what bbolt would take for an invitation to write: an empty
// file, which it makes a database of, and a file cut short, whose missing pages
// it would map and fault on.
func checkFile(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s: %w: it is no regular file", path, ErrNotRaft)
	}
	return checkMeta(path)
}

func openBolt(path string, o Options) (db *bbolt.DB, err error) {
	defer guard(path, &err)()
	db, err = bbolt.Open(path, filePerm, &bbolt.Options{
		Timeout:      lockWait,
		ReadOnly:     o.ReadOnly,
		NoSync:       o.NoSync,
		FreelistType: bbolt.FreelistMapType,
	})
	switch {
	case err == nil && o.ReadOnly: // nobody writes to it from here on
		if err := checkTree(path, db); err != nil {
			return nil, errors.Join(err, db.Close())
		}
		return db, nil
	case err == nil:
		return db, nil
	case isTimeout(err):
		return nil, &logstore.InUseError{Dir: path}
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		return nil, err
	}
	return nil, damaged(path, err.Error())
}

// buckets makes the two buckets, or checks that they are there.
func (s *Store) buckets(readOnly bool) (err error) {
	defer guard(s.path, &err)()
	if readOnly {
		return s.db.View(func(tx *bbolt.Tx) error {
			for _, name := range [][]byte{logsBucket(), confBucket()} {
				if tx.Bucket(name) == nil {
					return fmt.Errorf("%s: %w: it has no bucket %q", s.path, ErrNotRaft, name)
				}
			}
			return nil
		})
	}
	return s.db.Update(func(tx *bbolt.Tx) error {
		if _, err := tx.CreateBucketIfNotExists(logsBucket()); err != nil {
			return err
		}
		_, err := tx.CreateBucketIfNotExists(confBucket())
		return err
	})
}

// Close gives the file up. It may be called again.
func (s *Store) Close() error {
	var err error
	if s.noSync {
		err = s.Sync()
	}
	return errors.Join(err, s.db.Close())
}

// Sync makes what was written with NoSync durable. After Close it does nothing.
func (s *Store) Sync() error {
	if s.db.Path() == "" {
		return nil
	}
	return s.db.Sync()
}

// FirstIndex implements raft.LogStore.
func (s *Store) FirstIndex() (uint64, error) {
	return s.end((*bbolt.Cursor).First)
}

// LastIndex implements raft.LogStore.
func (s *Store) LastIndex() (uint64, error) {
	return s.end((*bbolt.Cursor).Last)
}

func (s *Store) end(move func(*bbolt.Cursor) ([]byte, []byte)) (index uint64, err error) {
	err = s.view(func(tx *bbolt.Tx) error {
		key, _ := move(tx.Bucket(logsBucket()).Cursor())
		if key == nil {
			return nil
		}
		index, err = s.index(key)
		return err
	})
	return index, err
}

func (s *Store) index(key []byte) (uint64, error) {
	if len(key) != indexBytes {
		return 0, damaged(s.path, fmt.Sprintf("a key of %d bytes stands among the entries, where each has %d", len(key), indexBytes))
	}
	return binary.BigEndian.Uint64(key), nil
}

// GetLog implements raft.LogStore.
func (s *Store) GetLog(index uint64, log *raft.Log) error {
	return s.view(func(tx *bbolt.Tx) error {
		value := tx.Bucket(logsBucket()).Get(key(index))
		if value == nil {
			return raft.ErrLogNotFound
		}
		return s.decode(index, value, log)
	})
}

// Each calls yield with every entry from index on, in order, until yield
// returns false: one transaction, in which nothing may be written to the store. The
// entry belongs to the caller.
func (s *Store) Each(index uint64, yield func(*raft.Log) bool) error {
	return s.view(func(tx *bbolt.Tx) error {
		cursor := tx.Bucket(logsBucket()).Cursor()
		for k, v := cursor.Seek(key(index)); k != nil; k, v = cursor.Next() {
			at, err := s.index(k)
			if err != nil {
				return err
			}
			var log raft.Log
			if err := s.decode(at, v, &log); err != nil {
				return err
			}
			if !yield(&log) {
				return nil
			}
		}
		return nil
	})
}

func (s *Store) decode(index uint64, value []byte, log *raft.Log) error {
	var l raft.Log
	if err := codec.NewDecoderBytes(value, &s.read).Decode(&l); err != nil {
		return s.damagedEntry(index, err.Error())
	}
	if l.Index != index {
		return s.damagedEntry(index, fmt.Sprintf("the entry says that its index is %d", l.Index))
	}
	*log = l
	return nil
}

// StoreLog implements raft.LogStore.
func (s *Store) StoreLog(log *raft.Log) error { return s.StoreLogs([]*raft.Log{log}) }

// StoreLogs implements raft.LogStore, in one transaction. Like raft-boltdb it
// replaces entries that are there and takes any index.
func (s *Store) StoreLogs(logs []*raft.Log) error {
	return s.update(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(logsBucket())
		bucket.FillPercent = 0.9 // entries come in order
		for _, l := range logs {
			var value []byte
			if err := codec.NewEncoderBytes(&value, &s.write).Encode(l); err != nil {
				return fmt.Errorf("encoding log entry %d: %w", l.Index, err)
			}
			if err := bucket.Put(key(l.Index), value); err != nil {
				return fmt.Errorf("storing log entry %d: %w", l.Index, err)
			}
		}
		return nil
	})
}

// DeleteRange implements raft.LogStore. Like raft-boltdb it deletes whatever it
// finds between the two, both included.
func (s *Store) DeleteRange(minIndex, maxIndex uint64) error {
	return s.update(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(logsBucket())
		cursor := bucket.Cursor()
		// Deleting under the cursor may make it skip a key, hence Seek again.
		for k, _ := cursor.Seek(key(minIndex)); k != nil && bytes.Compare(k, key(maxIndex)) <= 0; k, _ = cursor.Seek(key(minIndex)) {
			if err := cursor.Delete(); err != nil {
				return err
			}
		}
		return nil
	})
}

// Set implements raft.StableStore.
func (s *Store) Set(k, v []byte) error {
	return s.update(func(tx *bbolt.Tx) error { return tx.Bucket(confBucket()).Put(k, v) })
}

// SetUint64 implements raft.StableStore.
func (s *Store) SetUint64(k []byte, v uint64) error { return s.Set(k, key(v)) }

// Get implements raft.StableStore.
func (s *Store) Get(k []byte) (value []byte, err error) {
	err = s.view(func(tx *bbolt.Tx) error {
		v := tx.Bucket(confBucket()).Get(k)
		if v == nil {
			return logstore.ErrKeyNotFound
		}
		value = append([]byte{}, v...)
		return nil
	})
	return value, err
}

// GetUint64 implements raft.StableStore.
func (s *Store) GetUint64(k []byte) (uint64, error) {
	v, err := s.Get(k)
	if err != nil {
		return 0, err
	}
	if len(v) != indexBytes {
		return 0, fmt.Errorf("the value of %q has %d bytes: a number has %d", k, len(v), indexBytes)
	}
	return binary.BigEndian.Uint64(v), nil
}

// Keys implements logstore.KeyLister.
func (s *Store) Keys() (keys [][]byte, err error) {
	err = s.view(func(tx *bbolt.Tx) error {
		return tx.Bucket(confBucket()).ForEach(func(k, v []byte) error {
			if v == nil {
				return damaged(s.path, fmt.Sprintf("%q is a bucket among the stable values", k))
			}
			keys = append(keys, bytes.Clone(k))
			return nil
		})
	})
	return keys, err
}

func (s *Store) view(do func(*bbolt.Tx) error) (err error) {
	defer guard(s.path, &err)()
	return closedAs(s.db.View(do))
}

func (s *Store) update(do func(*bbolt.Tx) error) (err error) {
	defer guard(s.path, &err)()
	return closedAs(s.db.Update(do))
}

func key(index uint64) []byte { return binary.BigEndian.AppendUint64(nil, index) }
