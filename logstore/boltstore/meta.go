package boltstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// The front of a bbolt file: two pages, each with a description of the
// database, of which the newer whole one counts (bbolt, internal/common/meta.go).
const (
	pageHeaderBytes = 16 // of every page: id, flags, count, overflow
	metaBytes       = 64
	boltMagic       = 0xED0CDAED
	boltVersion     = 2
	minPageBytes    = 1 << 9
	maxPageBytes    = 1 << 16
)

// meta is what of such a description matters here.
type meta struct {
	pageBytes uint32
	root      uint64 // page of the top-level bucket
	pages     uint64 // the database ends behind that many
	tx        uint64
}

// checkMeta fails unless the file at path is a bbolt database of full length.
func checkMeta(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	newest, ok := readMeta(f, 0)
	// The second description stands one page on. If the first is damaged, the
	// size of a page has to be guessed.
	for size := int64(minPageBytes); size <= maxPageBytes; size *= 2 {
		if ok && size != int64(newest.pageBytes) {
			continue
		}
		if m, second := readMeta(f, size); second && int64(m.pageBytes) == size && (!ok || m.tx > newest.tx) {
			newest, ok = m, true
		}
		if ok {
			break
		}
	}
	if !ok {
		return fmt.Errorf("%w: %w", ErrNotRaft, damaged(path, "it is no bbolt database, or both descriptions at its front are damaged"))
	}
	// The length now, because a file in use grows before a description says so.
	info, err := f.Stat()
	if err != nil {
		return err
	}
	size := uint64(info.Size())
	if need := newest.pages; need > size/uint64(newest.pageBytes) {
		return damaged(path, fmt.Sprintf("the file has %d bytes, and %d pages of %d bytes belong to it", size, need, newest.pageBytes))
	}
	return nil
}

// readMeta reads the description in the page at offset; false: there is no
// whole one.
func readMeta(r io.ReaderAt, offset int64) (meta, bool) {
	var b [metaBytes]byte
	if _, err := r.ReadAt(b[:], offset+pageHeaderBytes); err != nil && !errors.Is(err, io.EOF) {
		return meta{}, false
	}
	// bbolt writes in the byte order of the machine; files do not travel
	// between machines of different order.
	order := binary.NativeEndian
	sum := fnv.New64a()
	sum.Write(b[:metaBytes-8])
	if order.Uint32(b[0:]) != boltMagic || order.Uint32(b[4:]) != boltVersion || order.Uint64(b[metaBytes-8:]) != sum.Sum64() {
		return meta{}, false
	}
	m := meta{pageBytes: order.Uint32(b[8:]), pages: order.Uint64(b[40:]), tx: order.Uint64(b[48:])}
	return m, m.pageBytes >= minPageBytes && m.pageBytes <= maxPageBytes
}
