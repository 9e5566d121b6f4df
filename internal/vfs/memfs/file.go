package memfs

import (
	"io"
	"io/fs"
	"slices"
	"syscall"

	"github.com/aiondb/aiondb-ha/internal/vfs"
)

// file is an open file. It leads to its node, whatever names do.
type file struct {
	fs       *FS
	name     string
	node     *node
	writable bool
	closed   bool
}

var _ vfs.File = (*file)(nil)

func (f *file) check(op string, needWritable bool) error {
	switch {
	case f.closed:
		return pathError(op, f.name, fs.ErrClosed)
	case f.fs.crashed:
		return ErrCrashed
	case needWritable && !f.writable:
		return pathError(op, f.name, syscall.EBADF)
	}
	return nil
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.check("read", false); err != nil {
		return 0, err
	}
	if v := f.fs.begin(Read, f.name, len(p)); v.Err != nil {
		return 0, pathError("read", f.name, v.Err)
	}
	if off >= int64(len(f.node.seen)) {
		return 0, io.EOF
	}
	n := copy(p, f.node.seen[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.check("write", true); err != nil {
		return 0, err
	}
	v := f.fs.begin(Write, f.name, len(p))
	if v.Err != nil {
		n := min(v.Short, len(p))
		f.node.write(write{at: off, data: slices.Clone(p[:n])})
		return n, pathError("write", f.name, v.Err)
	}
	f.node.write(write{at: off, data: slices.Clone(p)})
	return len(p), nil
}

func (f *file) Truncate(size int64) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.check("truncate", true); err != nil {
		return err
	}
	if v := f.fs.begin(Truncate, f.name, 0); v.Err != nil {
		return pathError("truncate", f.name, v.Err)
	}
	f.node.write(write{at: size})
	return nil
}

func (f *file) Sync() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.check("sync", false); err != nil {
		return err
	}
	v := f.fs.begin(Sync, f.name, 0)
	if v.Err == nil {
		// The writes, not what is seen: of what an earlier sync failed to write and
		// forgot, this one knows nothing.
		for _, w := range f.node.writes {
			f.node.durable = w.apply(f.node.durable)
		}
	}
	if v.Err == nil || v.Forget {
		f.node.writes = nil
	}
	if v.Err != nil {
		return pathError("sync", f.name, v.Err)
	}
	return nil
}

func (f *file) Size() (int64, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.check("stat", false); err != nil {
		return 0, err
	}
	return int64(len(f.node.seen)), nil
}

func (f *file) Chmod(mode fs.FileMode) error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.check("chmod", false); err != nil {
		return err
	}
	if v := f.fs.begin(Chmod, f.name, 0); v.Err != nil {
		return pathError("chmod", f.name, v.Err)
	}
	f.node.perm = mode
	return nil
}

func (f *file) Close() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.closed {
		return pathError("close", f.name, fs.ErrClosed)
	}
	f.closed = true
	return nil
}

// write changes what is seen and remembers the change.
func (n *node) write(w write) {
	if w.data != nil && len(w.data) == 0 {
		return
	}
	n.seen = w.apply(n.seen)
	if w.data != nil {
		// What goes to the disk are whole sectors, as they are now.
		from := w.at / vfs.SectorSize * vfs.SectorSize
		to := (w.at + int64(len(w.data)) + vfs.SectorSize - 1) / vfs.SectorSize * vfs.SectorSize
		w = write{at: from, data: slices.Clone(n.seen[from:min(to, int64(len(n.seen)))])}
	}
	n.writes = append(n.writes, w)
}

// apply returns the bytes after the change. It may change them in place.
func (w write) apply(data []byte) []byte {
	end := w.at + int64(len(w.data))
	if int64(len(data)) < end {
		data = append(data, make([]byte, end-int64(len(data)))...)
	}
	if w.data == nil {
		return data[:w.at:w.at]
	}
	copy(data[w.at:], w.data)
	return data
}
