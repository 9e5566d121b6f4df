package jsonlstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/aiondb/aiondb-ha/internal/vfs"
	"github.com/aiondb/aiondb-ha/logstore"
)

// An index file saves reading a sealed part from end to end. It says nothing that
// the part does not, so a bad one is no damage; it is made anew.
//
//	 0  "rlindex1"
//	 8  first     index of the first entry
//	16  count     entries
//	24  bytes     of the part, up to behind the last entry
//	32  maxTerm   of all entries
//	40  mark      index of the last entry that carries a commit index, and that
//	48            commit index; 0, 0: there is none
//	56  width     of each offset below: 4, or 8 if bytes does not fit in 4
//	60  CRC-32C of the offsets
//	64  CRC-32C of everything above
//	68  where each entry begins, count times width bytes
//
// All numbers are little endian.
const (
	indexMagic   = "rlindex1"
	indexHeadLen = 68
)

// errBadIndex is wrapped by everything that is wrong with an index file but that
// it cannot be read.
var errBadIndex = errors.New("the index file is damaged")

func (h *partHead) width() int {
	if h.bytes > 1<<32-1 {
		return 8
	}
	return 4
}

func encodeIndex(x *partIndex) []byte {
	width := x.width()
	b := make([]byte, indexHeadLen, indexHeadLen+x.count*width)
	for n := range x.count {
		if width == 4 {
			b = binary.LittleEndian.AppendUint32(b, uint32(x.starts.at(n)))
		} else {
			b = binary.LittleEndian.AppendUint64(b, uint64(x.starts.at(n)))
		}
	}
	head := append(b[:0], indexMagic...)
	for _, v := range []uint64{x.first, uint64(x.count), uint64(x.bytes), x.maxTerm, x.mark.index, x.mark.commit} {
		head = binary.LittleEndian.AppendUint64(head, v)
	}
	head = binary.LittleEndian.AppendUint32(head, uint32(width))
	head = binary.LittleEndian.AppendUint32(head, crc32.Checksum(b[indexHeadLen:], castagnoli))
	binary.LittleEndian.AppendUint32(head, crc32.Checksum(head, castagnoli))
	return b
}

// decodeHead reads the head of an index file that is size bytes long; sum is the
// checksum of what follows.
func decodeHead(text []byte, size int64) (h partHead, sum uint32, err error) {
	if len(text) < indexHeadLen || string(text[:len(indexMagic)]) != indexMagic {
		return h, 0, fmt.Errorf("%w: it is none", errBadIndex)
	}
	le := binary.LittleEndian
	if crc32.Checksum(text[:64], castagnoli) != le.Uint32(text[64:]) {
		return h, 0, fmt.Errorf("%w: the checksum of its head does not fit", errBadIndex)
	}
	count, bytes := le.Uint64(text[16:]), le.Uint64(text[24:])
	h = partHead{
		first: le.Uint64(text[8:]), count: int(count), bytes: int64(bytes), maxTerm: le.Uint64(text[32:]),
		mark: commitMark{index: le.Uint64(text[40:]), commit: le.Uint64(text[48:])},
	}
	// Under a right checksum, this is for the sake of the arithmetic alone.
	switch {
	case count == 0 || bytes > 1<<62 || count > bytes || h.first == 0 || h.first > logstore.MaxIndex || count-1 > logstore.MaxIndex-h.first,
		le.Uint32(text[56:]) != uint32(h.width()),
		h.mark.index != 0 && (h.mark.index < h.first || h.mark.index > h.last()),
		h.mark.commit > h.mark.index,
		size < indexHeadLen || uint64(size-indexHeadLen)/uint64(h.width()) != count || (size-indexHeadLen)%int64(h.width()) != 0:
		return partHead{}, 0, fmt.Errorf("%w: its head contradicts itself", errBadIndex)
	}
	return h, le.Uint32(text[60:]), nil
}

// decodeStarts reads what follows the head.
func decodeStarts(h partHead, body []byte, sum uint32) (*partIndex, error) {
	if len(body) != h.count*h.width() || crc32.Checksum(body, castagnoli) != sum {
		return nil, fmt.Errorf("%w: the checksum does not fit", errBadIndex)
	}
	x := &partIndex{partHead: h, starts: newStarts(h.count, h.bytes)}
	prev := int64(-1)
	for n := 0; n < len(body); n += h.width() {
		var at int64
		if h.width() == 4 {
			at = int64(binary.LittleEndian.Uint32(body[n:]))
		} else {
			at = int64(binary.LittleEndian.Uint64(body[n:]))
		}
		if at <= prev || at >= h.bytes {
			return nil, fmt.Errorf("%w: its offsets do not ascend", errBadIndex)
		}
		x.starts.add(at)
		prev = at
	}
	return x, nil
}

// loadHead reads the head of the index file of the part that begins with first. An
// error wraps errBadIndex, fs.ErrNotExist, or is what the file system said.
func loadHead(fsys vfs.FS, dir string, first uint64) (partHead, error) {
	file, h, _, err := openIndex(fsys, dir, first)
	if err != nil {
		return h, err
	}
	return h, file.Close()
}

// loadIndex reads the whole index file, with the same errors.
func loadIndex(fsys vfs.FS, dir string, first uint64) (*partIndex, error) {
	file, h, sum, err := openIndex(fsys, dir, first)
	if err != nil {
		return nil, err
	}
	defer file.Close() // only read from
	body := make([]byte, h.count*h.width())
	if n, err := file.ReadAt(body, indexHeadLen); n < len(body) {
		return nil, fmt.Errorf("reading %s: %w", indexPath(dir, first), err)
	}
	return decodeStarts(h, body, sum)
}

func openIndex(fsys vfs.FS, dir string, first uint64) (vfs.File, partHead, uint32, error) {
	path := indexPath(dir, first)
	file, err := fsys.Open(path)
	if err != nil {
		return nil, partHead{}, 0, fmt.Errorf("opening %s: %w", path, err)
	}
	fail := func(err error) (vfs.File, partHead, uint32, error) {
		return nil, partHead{}, 0, errors.Join(fmt.Errorf("reading %s: %w", path, err), file.Close())
	}
	size, err := file.Size()
	if err != nil {
		return fail(err)
	}
	var text [indexHeadLen]byte
	if n, err := file.ReadAt(text[:], 0); n < len(text) && !errors.Is(err, io.EOF) {
		return fail(err)
	} else if n < len(text) {
		return fail(fmt.Errorf("%w: it ends early", errBadIndex))
	}
	h, sum, err := decodeHead(text[:], size)
	if err != nil {
		return fail(err)
	}
	if h.first != first {
		return fail(fmt.Errorf("%w: it belongs to another part", errBadIndex))
	}
	return file, h, sum, nil
}

// writeIndex writes the index file of a part and syncs it; made tells that the sync
// was reached, and that an error is its. There may be one already, which goes. Its
// name becomes durable with the next SyncDir.
func writeIndex(fsys vfs.FS, dir string, x *partIndex) (made bool, err error) {
	path := indexPath(dir, x.first)
	if err := removeIfThere(fsys, path); err != nil {
		return false, err
	}
	file, err := fsys.Create(path, filePerm)
	if err != nil {
		return false, err
	}
	text := encodeIndex(x)
	n, err := file.WriteAt(text, 0)
	if err == nil && n < len(text) {
		err = io.ErrShortWrite
	}
	if err != nil {
		return false, errors.Join(err, file.Close(), removeIfThere(fsys, path))
	}
	return true, errors.Join(file.Sync(), file.Close())
}
