package boltstore

import (
	"bytes"
	"errors"

	"go.etcd.io/bbolt"
)

// Database is a bbolt file of any program, open for reading alone, for whoever
// must look into one without trusting it: damage is an error, not a panic. It
// is safe for concurrent use.
type Database struct {
	path string
	db   *bbolt.DB
}

// OpenDatabase opens a file as Open with ReadOnly does.
func OpenDatabase(path string) (*Database, error) {
	if err := checkFile(path); err != nil {
		return nil, err
	}
	db, err := openBolt(path, Options{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	return &Database{path: path, db: db}, nil
}

// Path returns the path of the file.
func (d *Database) Path() string { return d.path }

// Get returns a value of a bucket; nil: there is no such key or bucket.
func (d *Database) Get(bucket string, key []byte) (value []byte, err error) {
	defer guard(d.path, &err)()
	err = d.db.View(func(tx *bbolt.Tx) error {
		if b := tx.Bucket([]byte(bucket)); b != nil {
			if v := b.Get(key); v != nil {
				value = append([]byte{}, v...)
			}
		}
		return nil
	})
	return value, closedAs(err)
}

// Keys returns the keys of a bucket in ascending order.
func (d *Database) Keys(bucket string) (keys [][]byte, err error) {
	defer guard(d.path, &err)()
	err = d.db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(bucket))
		if b == nil {
			return errors.New(d.path + " has no bucket " + bucket)
		}
		return b.ForEach(func(k, _ []byte) error {
			keys = append(keys, bytes.Clone(k))
			return nil
		})
	})
	return keys, closedAs(err)
}

// Buckets returns the names of the top-level buckets, which tell whose file it
// is.
func (d *Database) Buckets() (names []string, err error) {
	defer guard(d.path, &err)()
	err = d.db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(name []byte, _ *bbolt.Bucket) error {
			names = append(names, string(name))
			return nil
		})
	})
	return names, closedAs(err)
}

// Close gives the file up. It may be called again.
func (d *Database) Close() error { return d.db.Close() }
