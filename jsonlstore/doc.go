// Package jsonlstore keeps a Raft log as a text file that people can read: one
// JSON object a line, one line an entry.
//
//	DIR/raft_log.jsonl     the log, its last part         DIR is 0700, files are 0600
//	DIR/raft_log.N.jsonl   parts before it, of 16 MiB, and an index of each beside it
//	DIR/raft_state.json    term, vote, commit index, and whatever else Raft keeps
//	DIR/raft.lock          held by the process that has the directory open
//
//	{"index":7,"term":2,"command":{"RemoveNode":{"node_id":3}},"at":"…","crc":"9c0d43f1"}
//	 '------------- AionDB's own fields ----------------------' '--- further ones ---'
//
// A [Store] is a raft.LogStore and a raft.StableStore for any application of
// hashicorp/raft; a payload that is none of AionDB's commands stands in the
// line as base64. Files written by the original AionDB crate open here, and
// what is written here opens there.
//
// # What it promises
//
//   - What StoreLogs, DeleteRange, Set and SetUint64 returned nil for survives
//     power loss. Each StoreLogs is one write and one sync.
//   - After a crash at any moment, Open succeeds by itself and every
//     acknowledged entry is there: what was being written is cut off.
//   - Damage to what was acknowledged is named (file, line, byte offset,
//     index), never returned as data, and never cut off silently.
//   - After a failed sync nothing more is written until the store is opened
//     again. A full disk, by contrast, is an error and no more: the store goes
//     on by itself when there is room.
//   - Reads run beside writes and never wait for the disk to sync.
//
// DESIGN.md in this directory draws the format, says what a crash does to each
// step, and where the promises end.
//
// # Without a running node
//
// [Verify], [Cat], [Stat] and [Tail] read a directory as it is, in use or not,
// without changing anything: all parts of the log, as they were at one moment. [Repair] makes
// a damaged one open again, and keeps a copy of all that it touches; [PlanRepair]
// tells what it would do.
//
// # Metrics
//
// To the process's go-metrics sink, in milliseconds: raft.jsonl.getLog, .storeLogs
// and .deleteRange; counted: .logsPerBatch (entries), .logBatchSize and .logSize
// (bytes).
package jsonlstore
