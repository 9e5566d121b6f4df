package jsonlstore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/aiondb/aiondb-ha/internal/vfs"
)

// copySuffix is what the name of a copy has behind that of the file; the time
// follows.
const copySuffix = ".before-repair-"

// copyTime is how the time stands in it.
const copyTime = "20060102T150405Z"

// copyTemp is where a copy is written before it has its name.
const copyTemp = ".before-repair.tmp"

// maxCopies bounds how many copies may have been made in the same second.
const maxCopies = 100

// keepCopy puts a copy of a file beside it and makes it durable, name and all.
// It never replaces a file. The caller holds the directory's lock.
func keepCopy(fsys vfs.FS, dir, path string, at time.Time) (name string, err error) {
	if name, err = freeName(fsys, path+copySuffix+at.UTC().Format(copyTime)); err != nil {
		return "", err
	}
	temp := path + copyTemp
	if err := removeIfThere(fsys, temp); err != nil {
		return "", fmt.Errorf("copying %s: %w", path, err)
	}
	if err := copyTo(fsys, temp, path); err != nil {
		return "", fmt.Errorf("copying %s: %w", path, errors.Join(err, removeIfThere(fsys, temp)))
	}
	if err := fsys.Rename(temp, name); err != nil {
		return "", fmt.Errorf("copying %s: %w", path, errors.Join(err, removeIfThere(fsys, temp)))
	}
	if err := fsys.SyncDir(dir); err != nil {
		return "", fmt.Errorf("copying %s: %w", path, err)
	}
	return name, nil
}

func freeName(fsys vfs.FS, name string) (string, error) {
	for n := 1; n <= maxCopies; n++ {
		try := name
		if n > 1 {
			try = fmt.Sprintf("%s-%d", name, n)
		}
		_, err := fsys.Stat(try)
		if errors.Is(err, fs.ErrNotExist) {
			return try, nil
		}
		if err != nil {
			return "", fmt.Errorf("looking for %s: %w", try, err)
		}
	}
	return "", fmt.Errorf("%s and %d more are there already", name, maxCopies-1)
}

// copyTo writes the bytes of one file to a new one and syncs it.
func copyTo(fsys vfs.FS, to, from string) (err error) {
	src, err := fsys.Open(from)
	if err != nil {
		return err
	}
	defer src.Close() // only read from
	size, err := src.Size()
	if err != nil {
		return err
	}
	dst, err := fsys.Create(to, filePerm)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	if err := copyRange(dst, src, 0, size); err != nil {
		return err
	}
	return dst.Sync()
}

// replaceStateOf puts text in the place of the state file at once, makes it durable,
// and removes the twin, which says otherwise, only then: it may have been all there
// was of a state.
func replaceStateOf(fsys vfs.FS, dir string, text []byte) error {
	path := filepath.Join(dir, StateFile)
	temp := path + copyTemp
	file, err := createAnew(fsys, temp)
	if err != nil {
		return err
	}
	err = writeAll(file, text)
	if err == nil {
		err = file.Sync()
	}
	err = errors.Join(err, file.Close())
	if err == nil {
		err = fsys.Rename(temp, path)
	}
	if err != nil {
		return errors.Join(err, removeIfThere(fsys, temp))
	}
	if err := fsys.SyncDir(dir); err != nil {
		return err
	}
	if err := removeIfThere(fsys, path+tempSuffix); err != nil {
		return err
	}
	return fsys.SyncDir(dir)
}

// copyRange writes the bytes [from, to) of src to the front of dst.
func copyRange(dst vfs.File, src io.ReaderAt, from, to int64) error {
	buf := make([]byte, min(readChunk, to-from))
	for at := int64(0); from < to; {
		n, err := src.ReadAt(buf[:min(int64(len(buf)), to-from)], from)
		if n == 0 {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		w, err := dst.WriteAt(buf[:n], at)
		if err == nil && w < n {
			err = io.ErrShortWrite
		}
		if err != nil {
			return err
		}
		from, at = from+int64(n), at+int64(n)
	}
	return nil
}
