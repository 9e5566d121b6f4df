// Package walplane is the demo's data plane: a small, honest, replicated
// key-value store on a write-ahead log. It stands where an embedding server's
// database stands: it implements failover.Database, WriteStopper and
// WriteWatcher, and knows nothing of Raft, gossip or elections.
//
//	           Put ──► queue ──► one writer ──► append + fsync ──► wal.log
//	            ▲                                  │ flushed
//	            │ Ack{epoch, lsn}                  ▼
//	guard ──────┤                        a sender per replica ──► TCP ──► append + fsync
//	applied ◄───┴── applier ◄── committed ◄── acks {epoch, flushed lsn} ◄────┘
//
// # The rules
//
// These carry the proof that no acknowledged write is lost:
//
//   - LSNs count records, from 1, without gaps; epochs never fall along a log;
//     the first record of every epoch is its begin record, written by Promote.
//   - A position is never more than what is flushed. What a crashed process had
//     written but not flushed is flushed by Open before it counts.
//   - A replica takes records only from the epoch it was told to follow, never
//     of an epoch below its fence, and looks again at every batch, under the
//     lock that Fence takes. So when Fence has returned nothing lower comes in.
//   - Before it follows, a replica cuts its log, durably, to what it has in
//     common with the lineage of the timeline it follows. It refuses to cut
//     what it knows to be committed: that would mean that one of the other
//     rules was broken. (What is committed is learned from the stream and not
//     kept on disk, so this last check reaches back to the start of the process.)
//   - A record is committed when a quorum of the voters has flushed it and the
//     begin record of the primary's own epoch: records of older epochs are
//     committed along with that one, never by counting their copies alone.
//   - A write is acknowledged when it is committed and applied and the guard,
//     asked after that, still says yes.
//
// Therefore: the quorum that flushed an acknowledged write and the quorum that
// was fenced and told its positions before the next primary was chosen share a
// voter; that voter had the write, and whoever has the highest position
// (epoch first) among that quorum has it too.
//
// # The log
//
// wal.log is a header and records, integers little-endian:
//
//	magic "AIONWAL1" (8) | salt (8)
//	crc32c (4) | len (4) | epoch (8) | lsn (8) | synced (8) | kind (1) | key_len (2) | key | value
//	             '------ len counts what follows it ------------------------------------'
//
// The checksum covers everything behind it and, before that, the file's salt,
// so that no value a client stores can look like a record. synced is the LSN up to which
// the log was flushed when the record was written. It tells a torn tail from
// damage: a bad record with good ones behind it is damage only if one of those
// was written after the bad one had been flushed; otherwise all of them belong
// to the last write, which never was acknowledged, and the disk kept its parts
// in an order of its own. A torn tail is cut off by Open; damage is a
// *DamageError that names file and offset, and nothing is changed. Damage to
// the very last write cannot be told from a torn tail.
//
// # What it does not do
//
// The log is never compacted: a primary refuses writes past
// Config.MaxLogBytes, and all keys and values are held in memory. That is fine
// for a demo and for nothing else.
package walplane
