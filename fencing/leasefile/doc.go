// Package leasefile shows a node's lease to a database in another process, in a
// file of one page that both map into memory.
//
//	node's process                          database's process
//	──────────────                          ──────────────────
//	Guard ──► Writer ──► epoch, deadline ──► Page ──► Check(epoch) before
//	        (every renewal, every close)              every acknowledgement
//
// A database that lives on while the node is killed, stopped or stuck stops
// acknowledging when the lease is over, because nobody renews it; and it is
// over before another node becomes primary. No message has to arrive for that.
// Check means what fencing.Guard's means. It costs a few loads from memory and
// one reading of the clock; it takes no lock and waits for nobody.
//
// # The file
//
// 4096 bytes, of which 104 are used: words of 8 bytes, in the byte order of the
// machine, each read and written as a whole (in C, with __atomic_load_n and
// __ATOMIC_ACQUIRE; in Rust, as AtomicU64).
//
//	 0  magic       the bytes "AIONLEAS"
//	 8  version     1
//	16  boot        two words: the 16 bytes of /proc/sys/kernel/random/boot_id, in
//	                their order, without the hyphens
//	32  namespace   the inode number of /proc/self/ns/time of the writer, 0 if it
//	                has none: its CLOCK_BOOTTIME is that namespace's
//	40  head        the exclusive or of the five words before it
//
//	64  sequence    odd while the words below, or those above, are being written
//	72  generation  one more with every start of a writer
//	80  epoch       of which the node may speak as primary; 0: of none
//	88  deadline    until when, in ns of CLOCK_BOOTTIME
//	96  body        the exclusive or of the four words before it and of magic
//
// A reader does this, before every acknowledgement:
//
//  1. Load sequence; when it is odd, begin again, a bounded number of times: a
//     writer may have died in the middle.
//  2. Load the others, then sequence once more; when it has changed, begin again.
//  3. Refuse unless head, body, magic, version, boot and namespace are as above,
//     boot and namespace being the reader's own. A file from before a reboot, or
//     of another container's clock, says nothing.
//  4. Refuse unless epoch is the one the database was promoted in.
//  5. Refuse unless CLOCK_BOOTTIME is below deadline, read after step 2. In C
//     clock_gettime asks no system call for it.
//
// It maps the file once, read-only and shared. The file is never replaced, cut
// or removed by the node; who does either while it is mapped ends the reader
// (SIGBUS) or cuts it off from what the node writes: then it refuses when the
// lease is over.
//
// # Where to put it
//
// In a file system in memory, such as /run. A disk may make whoever writes to a
// mapped page wait, and a guard that closes waits until the page shows it. The
// file has mode 0600: the database runs as the node's user, or as root.
package leasefile
