// Package memfs is a file system in memory that can lose power.
//
// It keeps two states of everything: what programs see, and what the disk
// would still have. Sync and SyncDir carry the one into the other; files and
// the names of files apart, as on a real disk. CrashClone then gives a file
// system as it may look after the power came back: everything synced, and of
// the rest what its Loss says, sector by sector and name by name.
//
//	        WriteAt, Truncate          Create, Link, Rename, Remove, Mkdir
//	             |                               |
//	seen:      bytes                           names
//	             |  Sync                         |  SyncDir
//	durable:   bytes                           names
//
// Every change counts as one operation. Hook is asked before each and may make
// it fail, in part or as a whole, or stop the machine there.
package memfs

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"sync"
	"syscall"

	"github.com/aiondb/aiondb-ha/internal/vfs"
)

// Kind is what an operation does.
type Kind uint8

// The kinds of operations, in no particular order.
const (
	Create Kind = iota
	Write
	Truncate
	Sync
	Rename
	Link
	Remove
	Mkdir
	SyncDir
	Chmod
	LockWrite // the text of a lock file
	Read
)

func (k Kind) String() string {
	return [...]string{"create", "write", "truncate", "sync", "rename", "link", "remove", "mkdir", "syncdir", "chmod", "lockwrite", "read"}[k]
}

// Op is an operation that is about to happen.
type Op struct {
	N    int // its number, from 1; reads are not counted and have 0
	Kind Kind
	Name string // path
	Len  int    // bytes, of a write
}

// Verdict says what becomes of an operation.
type Verdict struct {
	// Err makes it fail. A write then still writes its first Short bytes. A sync that fails
	// leaves unsynced what was unsynced.
	Err   error
	Short int
	// Forget makes a failing sync behave as kernels do: what was not synced is
	// taken for synced from now on, though the disk never got it. It stays
	// visible until the power goes.
	Forget bool
	// Crash stops the machine at this operation: it and everything after it
	// fails with ErrCrashed. A write still writes its first Short bytes.
	Crash bool
}

// ErrCrashed is what everything returns once the machine has stopped.
var ErrCrashed = fmt.Errorf("the machine has stopped: %w", syscall.EIO)

// FS is the file system. Make one with New. It is safe for concurrent use.
type FS struct {
	// Hook, if not nil, decides about every operation. It is called with the
	// file system locked and must not use it. Set it before use or between
	// operations.
	Hook func(Op) Verdict

	mu      sync.Mutex
	ops     int
	crashed bool
	seen    map[string]*node // by path
	durable map[string]*node
	pending []nameOp // changes of names that no SyncDir made durable, in order
	locks   map[string]bool
}

// node is a file or a directory.
type node struct {
	dir     bool
	perm    fs.FileMode
	seen    []byte
	durable []byte
	writes  []write // since the last sync, in order
}

// write is a change of bytes that no Sync made durable. data nil: the length
// became at.
type write struct {
	at   int64
	data []byte
}

// nameOp is a change of a directory: name leads to node from now on (nil:
// nowhere), and old, if not "", leads nowhere.
type nameOp struct {
	dir  string
	name string
	node *node
	old  string
}

// New returns an empty file system with the root directory "/".
func New() *FS {
	root := &node{dir: true, perm: 0o755}
	return &FS{
		seen:    map[string]*node{"/": root},
		durable: map[string]*node{"/": root},
		locks:   make(map[string]bool),
	}
}

// Ops returns how many operations there were.
func (m *FS) Ops() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ops
}

// Crashed tells whether the machine has stopped.
func (m *FS) Crashed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.crashed
}

// Files returns the bytes of every file, as programs see them, by path.
func (m *FS) Files() map[string][]byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	files := make(map[string][]byte)
	for name, n := range m.seen {
		if !n.dir {
			files[name] = slices.Clone(n.seen)
		}
	}
	return files
}

// Put makes a file durable with these bytes, and its directories; it counts no
// operation.
func (m *FS) Put(name string, data []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for dir := filepath.Dir(name); m.seen[dir] == nil; dir = filepath.Dir(dir) {
		d := &node{dir: true, perm: 0o700}
		m.seen[dir], m.durable[dir] = d, d
	}
	n := &node{perm: 0o600, seen: slices.Clone(data), durable: slices.Clone(data)}
	m.seen[name], m.durable[name] = n, n
}

// begin counts an operation and asks the hook. The caller holds the lock.
func (m *FS) begin(kind Kind, name string, length int) Verdict {
	if m.crashed {
		return Verdict{Err: ErrCrashed}
	}
	op := Op{Kind: kind, Name: name, Len: length}
	if kind != Read {
		m.ops++
		op.N = m.ops
	}
	if m.Hook == nil {
		return Verdict{}
	}
	v := m.Hook(op)
	if v.Crash {
		m.crashed = true
		v.Err = ErrCrashed
	}
	return v
}

func pathError(op, name string, err error) error { return &fs.PathError{Op: op, Path: name, Err: err} }

// find returns what a name leads to.
func (m *FS) find(op, name string) (*node, error) {
	if m.crashed {
		return nil, ErrCrashed
	}
	n := m.seen[filepath.Clean(name)]
	if n == nil {
		return nil, pathError(op, name, fs.ErrNotExist)
	}
	return n, nil
}

// change records a change of names.
func (m *FS) change(op nameOp) {
	m.pending = append(m.pending, op)
	apply(m.seen, op)
}

func apply(names map[string]*node, op nameOp) {
	if op.old != "" {
		lead(names, op.old, nil)
	}
	lead(names, op.name, op.node)
}

func lead(names map[string]*node, name string, n *node) {
	if n == nil {
		delete(names, name)
	} else {
		names[name] = n
	}
}

// Open implements vfs.FS.
func (m *FS) Open(name string) (vfs.File, error) { return m.open(name, false) }

// OpenReadWrite implements vfs.FS.
func (m *FS) OpenReadWrite(name string) (vfs.File, error) { return m.open(name, true) }

func (m *FS) open(name string, writable bool) (vfs.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find("open", name)
	if err != nil {
		return nil, err
	}
	if n.dir {
		return nil, pathError("open", name, syscall.EISDIR)
	}
	return &file{fs: m, name: filepath.Clean(name), node: n, writable: writable}, nil
}

// Create implements vfs.FS.
func (m *FS) Create(name string, perm fs.FileMode) (vfs.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.makeNode(Create, name, &node{perm: perm})
	if err != nil {
		return nil, err
	}
	return &file{fs: m, name: filepath.Clean(name), node: n, writable: true}, nil
}

// Mkdir implements vfs.FS.
func (m *FS) Mkdir(name string, perm fs.FileMode) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, err := m.makeNode(Mkdir, name, &node{dir: true, perm: perm})
	return err
}

func (m *FS) makeNode(kind Kind, name string, n *node) (*node, error) {
	name = filepath.Clean(name)
	if m.seen[name] != nil {
		return nil, pathError(kind.String(), name, fs.ErrExist)
	}
	if d, err := m.find(kind.String(), filepath.Dir(name)); err != nil {
		return nil, err
	} else if !d.dir {
		return nil, pathError(kind.String(), name, syscall.ENOTDIR)
	}
	if v := m.begin(kind, name, 0); v.Err != nil {
		return nil, pathError(kind.String(), name, v.Err)
	}
	m.change(nameOp{dir: filepath.Dir(name), name: name, node: n})
	return n, nil
}

// Remove implements vfs.FS.
func (m *FS) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	name = filepath.Clean(name)
	n, err := m.find("remove", name)
	if err != nil {
		return err
	}
	if n.dir {
		for other := range m.seen {
			if filepath.Dir(other) == name && other != name {
				return pathError("remove", name, syscall.ENOTEMPTY)
			}
		}
	}
	if v := m.begin(Remove, name, 0); v.Err != nil {
		return pathError("remove", name, v.Err)
	}
	m.change(nameOp{dir: filepath.Dir(name), name: name})
	return nil
}

// Rename implements vfs.FS.
func (m *FS) Rename(oldName, newName string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	oldName, newName = filepath.Clean(oldName), filepath.Clean(newName)
	n, err := m.find("rename", oldName)
	if err != nil {
		return err
	}
	if v := m.begin(Rename, newName, 0); v.Err != nil {
		return pathError("rename", newName, v.Err)
	}
	m.change(nameOp{dir: filepath.Dir(newName), name: newName, node: n, old: oldName})
	return nil
}

// Link implements vfs.FS.
func (m *FS) Link(oldName, newName string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	oldName, newName = filepath.Clean(oldName), filepath.Clean(newName)
	n, err := m.find("link", oldName)
	if err != nil {
		return err
	}
	if n.dir {
		return pathError("link", oldName, syscall.EPERM)
	}
	if m.seen[newName] != nil {
		return pathError("link", newName, fs.ErrExist)
	}
	if v := m.begin(Link, newName, 0); v.Err != nil {
		return pathError("link", newName, v.Err)
	}
	m.change(nameOp{dir: filepath.Dir(newName), name: newName, node: n})
	return nil
}

// ReadDir implements vfs.FS.
func (m *FS) ReadDir(name string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name = filepath.Clean(name)
	n, err := m.find("readdir", name)
	if err != nil {
		return nil, err
	}
	if !n.dir {
		return nil, pathError("readdir", name, syscall.ENOTDIR)
	}
	names := make([]string, 0)
	for other := range m.seen {
		if filepath.Dir(other) == name && other != name {
			names = append(names, filepath.Base(other))
		}
	}
	slices.Sort(names)
	return names, nil
}

// Stat implements vfs.FS.
func (m *FS) Stat(name string) (vfs.Info, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.find("stat", name)
	if err != nil {
		return vfs.Info{}, err
	}
	info := vfs.Info{SizeBytes: int64(len(n.seen)), Mode: n.perm}
	if n.dir {
		info.Mode |= fs.ModeDir
	}
	return info, nil
}

// SyncDir implements vfs.FS.
func (m *FS) SyncDir(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	name = filepath.Clean(name)
	if _, err := m.find("sync", name); err != nil {
		return err
	}
	if v := m.begin(SyncDir, name, 0); v.Err != nil {
		return pathError("sync", name, v.Err)
	}
	m.pending = slices.DeleteFunc(m.pending, func(op nameOp) bool {
		if op.dir != name {
			return false
		}
		apply(m.durable, op)
		return true
	})
	return nil
}

// Lock implements vfs.FS. The text is not subject to loss; nobody relies on it
// after a crash.
func (m *FS) Lock(name, holder string) (vfs.Lock, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	name = filepath.Clean(name)
	if m.locks[name] {
		return nil, &vfs.LockedError{Name: name, Holder: string(m.seen[name].seen)}
	}
	l := &lock{fs: m, name: name}
	n := m.seen[name]
	if n == nil {
		var err error
		if n, err = m.makeNode(Create, name, &node{perm: 0o600}); err != nil {
			return nil, err
		}
		l.created = true
	}
	l.before = n.seen
	if v := m.begin(LockWrite, name, len(holder)); v.Err != nil {
		if l.created && !m.crashed {
			m.change(nameOp{dir: filepath.Dir(name), name: name})
		}
		return nil, pathError("lock", name, v.Err)
	}
	n.seen, n.durable = []byte(holder), []byte(holder)
	m.locks[name] = true
	return l, nil
}

type lock struct {
	fs      *FS
	name    string
	created bool
	before  []byte
}

func (l *lock) Unlock() error {
	l.fs.mu.Lock()
	defer l.fs.mu.Unlock()
	delete(l.fs.locks, l.name)
	if n := l.fs.seen[l.name]; n != nil && !l.fs.crashed {
		n.seen, n.durable = nil, nil
	}
	return nil
}

func (l *lock) Undo() error {
	l.fs.mu.Lock()
	defer l.fs.mu.Unlock()
	delete(l.fs.locks, l.name)
	if l.fs.crashed {
		return ErrCrashed
	}
	if l.created {
		l.fs.change(nameOp{dir: filepath.Dir(l.name), name: l.name})
	} else if n := l.fs.seen[l.name]; n != nil {
		n.seen, n.durable = l.before, l.before
	}
	return nil
}
