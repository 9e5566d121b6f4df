package jsonlstore

import (
	"errors"
	"io"

	"github.com/aiondb/aiondb-ha/internal/vfs"
)

// frozenFile is a file as it was when it was looked at, though it may be appended to
// since: what stood at its end, where nothing was written yet, is remembered.
type frozenFile struct {
	file vfs.File
	from int64  // behind the last byte that was written
	tail []byte // what stood there: blanks, or zeros
	size int64
}

// maxFrozen bounds how much of that is remembered.
const maxFrozen = 4 << 20

// freeze looks for the end of what is written, from the end of the file on.
func freeze(file vfs.File) (frozenFile, error) {
	size, err := file.Size()
	if err != nil {
		return frozenFile{}, err
	}
	f := frozenFile{file: file, from: size, size: size}
	for step := int64(4 << 10); f.from > 0 && size-f.from < maxFrozen; step = min(2*step, readChunk) {
		n := min(step, f.from)
		buf := make([]byte, n, n+int64(len(f.tail)))
		k, err := file.ReadAt(buf, f.from-n)
		if err != nil && !errors.Is(err, io.EOF) {
			return frozenFile{}, err
		}
		if int64(k) < n { // cut meanwhile
			return frozenFile{}, errMoved
		}
		written := len(trimUnwritten(buf))
		f.tail = append(buf[written:], f.tail...)
		f.from -= n - int64(written)
		if written > 0 {
			break
		}
	}
	return f, nil
}

// ReadAt implements io.ReaderAt.
func (f frozenFile) ReadAt(p []byte, at int64) (n int, err error) {
	if at < f.from {
		n, err = f.file.ReadAt(p[:min(int64(len(p)), f.from-at)], at)
		if err != nil || n == len(p) {
			return n, err
		}
		at += int64(n)
	}
	if at < f.size {
		n += copy(p[n:], f.tail[at-f.from:])
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
