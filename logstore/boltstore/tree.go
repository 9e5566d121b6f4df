package boltstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"go.etcd.io/bbolt"
)

// The pages of a bbolt file (bbolt, internal/common/page.go and bucket.go). All
// elements of a page stand behind its header, and point to their key and value
// by the distance from themselves.
const (
	branchFlag   = 0x01 // of a page
	leafFlag     = 0x02
	bucketFlag   = 0x01 // of an element of a leaf: its value is a bucket
	elementBytes = 16
	bucketBytes  = 16 // root page and sequence, before a page that stands inline
)

// tree is a walk over the pages that can be reached from the root. bbolt follows the numbers in them without a doubt: where they
// lead in a circle, its cursor would run for ever, or until the stack is full, which no
// program survives.
type tree struct {
	path string
	file io.ReaderAt
	meta meta
	seen []uint64 // a bit for each page
	todo []uint64
	page []byte // room for what is read of one
}

// checkTree fails unless the file of db, which nobody may write to meanwhile,
// is a tree of pages: each is reached once, is what it says, lies below the end of the
// database, and its elements lie inside it. It reads the elements, not the
// entries, whose bytes are checked when they are decoded.
func checkTree(path string, db *bbolt.DB) error {
	m, err := metaInUse(db)
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if m.pageBytes < minPageBytes || m.pageBytes > maxPageBytes || m.pages > uint64(info.Size())/uint64(m.pageBytes) {
		return damaged(path, fmt.Sprintf("the file has %d bytes, and %d pages of %d bytes belong to it", info.Size(), m.pages, m.pageBytes))
	}
	t := &tree{path: path, file: f, meta: m, seen: make([]uint64, m.pages/64+1), todo: []uint64{m.root}}
	for len(t.todo) > 0 {
		id := t.todo[len(t.todo)-1]
		t.todo = t.todo[:len(t.todo)-1]
		if err := t.check(id); err != nil {
			return err
		}
	}
	return nil
}

// metaInUse asks bbolt which of the descriptions it goes by.
func metaInUse(db *bbolt.DB) (m meta, err error) {
	err = db.View(func(tx *bbolt.Tx) error {
		size := db.Info().PageSize
		m = meta{pageBytes: uint32(size), root: uint64(tx.Cursor().Bucket().Root()), pages: uint64(tx.Size()) / uint64(max(size, 1))}
		return nil
	})
	return m, err
}

func (t *tree) damaged(id uint64, format string, args ...any) error {
	return damaged(t.path, fmt.Sprintf("page %d: ", id)+fmt.Sprintf(format, args...))
}

// claim marks a page as reached.
func (t *tree) claim(id, from uint64) error {
	switch {
	case id >= t.meta.pages || id < 2: // the descriptions stand in 0 and 1
		return t.damaged(from, "it leads to page %d, and there are pages 2 to %d", id, t.meta.pages-1)
	case t.seen[id/64]&(1<<(id%64)) != 0:
		return t.damaged(from, "it leads to page %d, which belongs to another place, too", id)
	}
	t.seen[id/64] |= 1 << (id % 64)
	return nil
}

// read fills t.page with the first n bytes of page id.
func (t *tree) read(id uint64, n int) error {
	if cap(t.page) < n {
		t.page = make([]byte, n)
	}
	t.page = t.page[:n]
	_, err := t.file.ReadAt(t.page, int64(id*uint64(t.meta.pageBytes)))
	if errors.Is(err, io.EOF) {
		return t.damaged(id, "the file ends in it")
	}
	return err
}

// check looks at one page and puts those it leads to on the list.
func (t *tree) check(id uint64) error {
	if err := t.claim(id, id); err != nil {
		return err
	}
	if err := t.read(id, int(t.meta.pageBytes)); err != nil {
		return err
	}
	order := binary.NativeEndian
	if said := order.Uint64(t.page); said != id {
		return t.damaged(id, "it says that it is page %d", said)
	}
	overflow := uint64(order.Uint32(t.page[12:]))
	if overflow >= t.meta.pages-id {
		return t.damaged(id, "it goes on for %d pages, beyond the end", overflow)
	}
	for i := range overflow {
		if err := t.claim(id+1+i, id); err != nil {
			return err
		}
	}
	size := (overflow + 1) * uint64(t.meta.pageBytes)
	count := uint64(order.Uint16(t.page[10:]))
	elements := pageHeaderBytes + count*elementBytes
	if elements > size {
		return t.damaged(id, "it has no room for %d elements", count)
	}
	if elements > uint64(len(t.page)) {
		if err := t.read(id, int(elements)); err != nil {
			return err
		}
	}
	switch flags := order.Uint16(t.page[8:]); flags {
	case branchFlag:
		return t.branch(id, int(count), size)
	case leafFlag:
		return t.leaf(id, int(count), size)
	default:
		return t.damaged(id, "its flags are %#x: neither branch nor leaf", flags)
	}
}

func (t *tree) branch(id uint64, count int, size uint64) error {
	if count == 0 {
		return t.damaged(id, "a branch without elements")
	}
	order := binary.NativeEndian
	for i := range count {
		at := pageHeaderBytes + i*elementBytes
		e := t.page[at:]
		if end := uint64(at) + uint64(order.Uint32(e)) + uint64(order.Uint32(e[4:])); end > size {
			return t.damaged(id, "element %d ends at byte %d of %d", i, end, size)
		}
		t.todo = append(t.todo, order.Uint64(e[8:]))
	}
	return nil
}

func (t *tree) leaf(id uint64, count int, size uint64) error {
	buckets, err := leafElements(t.page, count, size)
	if err != nil {
		return t.damaged(id, "%v", err)
	}
	for _, b := range buckets {
		if b.size > uint64(t.meta.pageBytes) {
			return t.damaged(id, "a bucket of %d bytes", b.size)
		}
		value := make([]byte, b.size)
		if _, err := t.file.ReadAt(value, int64(id*uint64(t.meta.pageBytes)+b.at)); err != nil {
			return t.damaged(id, "%v", err)
		}
		root, err := bucketRoot(value)
		if err != nil {
			return t.damaged(id, "%v", err)
		}
		if root != 0 {
			t.todo = append(t.todo, root)
		}
	}
	return nil
}

// extent is a value inside a page.
type extent struct{ at, size uint64 }

// leafElements checks the elements of a leaf of size bytes, of which page is the
// front, and returns where the values are that are buckets.
func leafElements(page []byte, count int, size uint64) (buckets []extent, err error) {
	order := binary.NativeEndian
	for i := range count {
		at := pageHeaderBytes + i*elementBytes
		e := page[at:]
		value := extent{at: uint64(at) + uint64(order.Uint32(e[4:])) + uint64(order.Uint32(e[8:])), size: uint64(order.Uint32(e[12:]))}
		if end := value.at + value.size; end > size {
			return nil, fmt.Errorf("element %d ends at byte %d of %d", i, end, size)
		}
		if order.Uint32(e)&bucketFlag != 0 {
			buckets = append(buckets, value)
		}
	}
	return buckets, nil
}

// bucketRoot reads the value of a bucket: its root page, or 0 for one that
// stands inline, which is checked.
func bucketRoot(value []byte) (uint64, error) {
	if len(value) < bucketBytes {
		return 0, fmt.Errorf("a bucket of %d bytes", len(value))
	}
	order := binary.NativeEndian
	if root := order.Uint64(value); root != 0 {
		return root, nil
	}
	page := value[bucketBytes:]
	if len(page) < pageHeaderBytes || order.Uint16(page[8:]) != leafFlag {
		return 0, errors.New("a bucket inside a page that is no leaf")
	}
	count := int(order.Uint16(page[10:]))
	if pageHeaderBytes+count*elementBytes > len(page) {
		return 0, fmt.Errorf("a bucket inside a page has no room for %d elements", count)
	}
	buckets, err := leafElements(page, count, uint64(len(page)))
	if err == nil && len(buckets) > 0 { // bbolt makes none
		err = errors.New("a bucket inside a bucket inside a page")
	}
	return 0, err
}
