// Package boltstore reads and writes the database files of
// hashicorp/raft-boltdb, of both its major versions, without that module:
// raft-boltdb v2.3.1 does not compile beside raft v1.8.0, because go-metrics
// v0.7.0 no longer has a package that it imports.
//
// A file is a bbolt database with two buckets:
//
//	logs   8 bytes, big endian: the index  ->  the entry in MessagePack, a map of field names
//	conf   a stable key                    ->  its bytes; a uint64 is 8 bytes, big endian
//
// Version 1 was written by boltdb/bolt, whose file format bbolt kept. The time
// in an entry stands in one of two forms, depending on the version of
// go-msgpack that wrote it; both are read. Written is the older one, which
// raft-boltdb v2 writes by default and reads as v1 does with the go-msgpack
// v0.5.5 that it asks for. With go-msgpack v1.1.5, retracted since, v1 reads the
// newer form alone, and so nothing that v2 writes by default.
//
// A Store has the habits of raft-boltdb v2 where a program might rely on them.
// logstore.Checked puts the contract of a logstore.Store on top.
package boltstore
