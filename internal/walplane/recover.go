package walplane

import (
	"bufio"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/aiondb/aiondb-ha/protocol"
)

// openWAL opens the log in dir, creating both if need be. It returns how many
// bytes of a torn tail were cut off. Everything the returned log shows is
// flushed. The error is an *InUseError, a *DamageError (nothing was changed on
// disk then), or one of the file system.
func openWAL(dir string, disk disk) (w *wal, torn int64, err error) {
	if err := makeDir(dir); err != nil {
		return nil, 0, err
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, 0, err
	}
	path := filepath.Join(dir, logName)
	f, err := openOrCreate(path)
	if err != nil {
		return nil, 0, errors.Join(err, lock.Close())
	}
	w = &wal{path: path, f: f, lock: lock, disk: disk, end: headerBytes}
	if torn, err = w.recover(); err != nil {
		return nil, 0, errors.Join(err, w.close())
	}
	return w, torn, nil
}

// makeDir creates dir, private, and makes its entry durable.
func makeDir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("create the log's directory: %w", err)
	}
	return syncDir(filepath.Dir(dir))
}

// lockDir takes the lock that keeps a second process out, for as long as the
// returned file is open.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the log's directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, &InUseError{Dir: dir}
		}
		return nil, fmt.Errorf("lock the log's directory %s: %w", dir, err)
	}
	return f, nil
}

// openOrCreate opens the log file. A new one appears whole, header and
// directory entry flushed: there is no log with half a header.
func openOrCreate(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	header := make([]byte, headerBytes)
	copy(header, logMagic)
	if _, err := rand.Read(header[len(logMagic):]); err != nil {
		return nil, err
	}
	temp := path + ".tmp"
	f, err = os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = f.Write(header)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create %s: %w", path, err), f.Close())
	}
	return f, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// recover reads the log from its beginning, cuts off a torn tail and flushes.
func (w *wal) recover() (torn int64, err error) {
	info, err := w.f.Stat()
	if err != nil {
		return 0, err
	}
	size := info.Size()
	in := bufio.NewReaderSize(io.NewSectionReader(w.f, 0, size), maxRecordBytes)
	header, err := in.Peek(headerBytes)
	if err != nil || string(header[:len(logMagic)]) != logMagic {
		return 0, &DamageError{File: w.path, Reason: "this is not the header of such a log"}
	}
	w.salt = binary.LittleEndian.Uint64(header[len(logMagic):])
	off := int64(headerBytes)
	in.Discard(headerBytes) //nolint:errcheck // just peeked at
	for off < size {
		r, n, err := nextRecord(in, w.salt)
		if err != nil {
			if err := w.classify(off, size, err); err != nil {
				return 0, err
			}
			break
		}
		if err := r.follows(w.last); err != nil {
			return 0, &DamageError{File: w.path, Offset: off, LSN: w.last.LSN + 1, Reason: err.Error()}
		}
		w.note(r, off)
		off += int64(n)
	}
	if off < size {
		if err := w.f.Truncate(off); err != nil {
			return 0, fmt.Errorf("cut the torn tail of %s: %w", w.path, err)
		}
	}
	// The process before this one may have written without flushing. What was
	// read above counts from now on, so it has to be on disk.
	if err := w.disk.sync(w.f); err != nil {
		return 0, fmt.Errorf("flush %s: %w", w.path, err)
	}
	return size - off, nil
}

// nextRecord reads one record. It is good until the next read from in.
func nextRecord(in *bufio.Reader, salt uint64) (record, int, error) {
	head, err := in.Peek(recordHeader)
	if err != nil {
		return record{}, 0, shortIsTorn(err)
	}
	n, err := recordSize(head)
	if err != nil {
		return record{}, 0, err
	}
	body, err := in.Peek(n)
	if err != nil {
		return record{}, 0, shortIsTorn(err)
	}
	r, n, err := decodeRecord(body, salt)
	if err == nil {
		in.Discard(n) //nolint:errcheck // just peeked at
	}
	return r, n, err
}

func shortIsTorn(err error) error {
	if errors.Is(err, io.EOF) {
		return errShortRecord
	}
	return err
}

// classify decides what a record that cannot be read at off means: nil for a
// torn tail, an error for damage. It looks for good records behind it that
// were written after it had been flushed.
func (w *wal) classify(off, size int64, cause error) error {
	if !errors.Is(cause, errShortRecord) && !errors.Is(cause, errBadRecord) {
		return fmt.Errorf("read %s at offset %d: %w", w.path, off, cause)
	}
	lost := w.last.LSN + 1
	// The records lost between off and a good one behind it need room.
	maxLSN := lost + protocol.LSN((size-off)/minRecordBytes)
	const step = 4 << 20
	buf := make([]byte, min(step+maxRecordBytes, size-off))
	for at := off + 1; at+minRecordBytes <= size; at += step {
		n, err := w.f.ReadAt(buf[:min(int64(len(buf)), size-at)], at)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("read %s at offset %d: %w", w.path, at, err)
		}
		window := buf[:n]
		for i := 0; i < step && i+minRecordBytes <= len(window); i++ {
			// Cheap before dear: this looks at every byte. The checksum comes last.
			head := window[i:]
			if n := binary.LittleEndian.Uint32(head[4:]); n < recordFixed || n > maxRecordBytes {
				continue
			}
			lsn := protocol.LSN(binary.LittleEndian.Uint64(head[recordHeader+8:]))
			if lsn <= lost || lsn > maxLSN {
				continue
			}
			r, _, err := decodeRecord(head, w.salt)
			if err == nil && r.synced >= lost {
				return &DamageError{File: w.path, Offset: off, LSN: lost, Reason: fmt.Sprintf(
					"%v, and good records follow at offset %d (lsn %d)", cause, at+int64(i), r.lsn)}
			}
		}
	}
	return nil
}
