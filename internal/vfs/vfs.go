// Package vfs is the seam between a log store and the file system, only as
// wide as the store needs.
//
//	store  -->  FS, File  -->  OS      the real one
//	                      -->  memfs   remembers what was synced, crashes, injects errors
//
// # What a file system must promise
//
// The store's promises stand on these, for the OS and for memfs alike:
//
//  1. After File.Sync returned nil, the file's bytes and length survive power
//     loss.
//  2. After SyncDir returned nil, the names in that directory do.
//  3. What was not synced may be there, or not, sector by sector (SectorSize,
//     aligned); a sector that was not written still holds what it held before,
//     or zeros where the file was shorter.
//  4. A sector is written as a whole or not at all; writing to one never
//     changes another.
//  5. Rename puts the new file in the place of the old one at once: a crash
//     leaves one of the two.
package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// SectorSize is the number of bytes a disk writes as a whole. Disks with
// larger sectors write these together, which is a special case of the same.
const SectorSize = 512

// FS is a file system. Paths are slash or OS paths as the implementation
// takes them. Errors wrap the usual ones (fs.ErrNotExist, fs.ErrExist,
// fs.ErrPermission, syscall.ENOSPC). Implementations are safe for concurrent
// use.
type FS interface {
	// Open opens an existing file for reading.
	Open(name string) (File, error)
	// OpenReadWrite opens an existing file for reading and writing.
	OpenReadWrite(name string) (File, error)
	// Create makes a new file for reading and writing; it fails with
	// fs.ErrExist if the name is taken. The name survives power loss only
	// after SyncDir.
	Create(name string, perm fs.FileMode) (File, error)
	// Mkdir makes one directory; the same holds for its name.
	Mkdir(name string, perm fs.FileMode) error
	// Remove removes a file or an empty directory.
	Remove(name string) error
	// Rename gives a file a new name in the same directory, replacing what had it.
	Rename(oldName, newName string) error
	// Link gives a file a second name in the same directory; both lead to the
	// same bytes from then on. It fails with fs.ErrExist if that name is taken.
	Link(oldName, newName string) error
	// Stat describes a file or directory.
	Stat(name string) (Info, error)
	// ReadDir returns the names in a directory, in ascending order.
	ReadDir(name string) ([]string, error)
	// SyncDir makes the names in a directory durable.
	SyncDir(name string) error
	// Lock takes an exclusive lock that lasts until Unlock or the end of the
	// process, on a file of that name which is made if need be, and writes
	// holder into it for others to read. If it is taken, it returns a
	// *LockedError and has changed nothing.
	Lock(name, holder string) (Lock, error)
}

// File is an open file. Reads may run beside writes and beside Close; a read
// that comes too late returns an error that wraps fs.ErrClosed.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Truncate changes the length; durable only after Sync.
	Truncate(size int64) error
	// Sync makes the bytes and the length durable (fdatasync). After it failed, nobody
	// knows what is on disk.
	Sync() error
	// Size returns the length in bytes.
	Size() (int64, error)
	// Chmod changes the permission bits.
	Chmod(mode fs.FileMode) error
}

// Info describes a file.
type Info struct {
	SizeBytes int64
	Mode      fs.FileMode // type and permission bits
}

// Lock is a lock that is held.
type Lock interface {
	// Unlock gives the lock up. The file stays, emptied.
	Unlock() error
	// Undo gives the lock up and leaves the file as it was before Lock,
	// removed if Lock made it.
	Undo() error
}

// ErrLocked is wrapped by *LockedError.
var ErrLocked = errors.New("locked")

// LockedError says who holds a lock.
type LockedError struct {
	Name   string
	Holder string // as it wrote itself into the file; may be empty
}

func (e *LockedError) Error() string { return fmt.Sprintf("%s: %v by %q", e.Name, ErrLocked, e.Holder) }

// Unwrap returns ErrLocked.
func (e *LockedError) Unwrap() error { return ErrLocked }

// MaxHolderBytes bounds what is read of a lock file's text.
const MaxHolderBytes = 256
