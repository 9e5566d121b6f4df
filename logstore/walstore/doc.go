// Package walstore reads and writes the directories of hashicorp/raft-wal.
//
// Reading needs no raft-wal at work, changes nothing and trusts nothing. A
// directory holds
//
//	wal-meta.db                  a bbolt database: the list of segments, and the stable values
//	<base index>-<id>.wal        a segment
//
// and a segment, all numbers little endian,
//
//	header    32 bytes: magic, version, base index, id, codec
//	frame     type, three zero bytes, length or checksum; payload; zeros up to a multiple of 8
//	          entry   a log entry, as the codec wrote it
//	          index   where the entries stand; written when the segment is full
//	          commit  no payload: CRC-32C of everything since the commit before it
//	...
//	zeros     room
//
// OpenSource checks every commit's checksum, which raft-wal itself does for the last
// one alone, and then finds the entries by walking, not by the index. So it reads
// directories that raft-wal v0.4.0 refuses: those whose sealed segments lack an
// index ("sealed segment has no index block"), as a crash or a cut of the tail may
// leave them.
//
// # Numbers among the stable values
//
// raft-wal writes a uint64 in little endian, everybody else in big endian.
// For the two numbers that Raft keeps, CurrentTerm and LastVoteTerm, both
// Source and Store give and take big endian, as logstore.Store demands, and convert.
// Of any other key nobody can tell whether its eight bytes are a number: its
// bytes are copied as they are.
package walstore
