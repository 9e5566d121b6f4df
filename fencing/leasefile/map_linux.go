package leasefile

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"unsafe"
)

// The file systems in memory, as statfs names them.
const (
	tmpfsMagic = 0x01021994
	ramfsMagic = 0x858458f6
)

// thisHost returns for whom deadlines of this process hold good, and the magic
// word.
func thisHost() (own host, magic uint64, err error) {
	magic = binary.NativeEndian.Uint64([]byte("AIONLEAS"))
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return own, magic, fmt.Errorf("which boot this is: %w", err)
	}
	raw, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(string(text)), "-", ""))
	if err != nil || len(raw) != 16 {
		return own, magic, fmt.Errorf("which boot this is: %q is no boot ID", text)
	}
	own.boot = [2]uint64{binary.NativeEndian.Uint64(raw), binary.NativeEndian.Uint64(raw[8:])}
	var ns syscall.Stat_t
	if err := syscall.Stat("/proc/self/ns/time", &ns); err == nil {
		own.namespace = ns.Ino
	} else if !errors.Is(err, fs.ErrNotExist) {
		return own, magic, fmt.Errorf("which time namespace this is: %w", err)
	}
	return own, magic, nil
}

func mapFile(f *os.File, prot int) (w *words, unmap func() error, err error) {
	mem, err := syscall.Mmap(int(f.Fd()), 0, pageBytes, prot, syscall.MAP_SHARED)
	if err != nil {
		return nil, nil, fmt.Errorf("map: %w", err)
	}
	return (*words)(unsafe.Pointer(&mem[0])), func() error { return syscall.Munmap(mem) }, nil //nolint:gosec // page-aligned
}

func mapForReading(path string) (*words, func() error, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close() // the mapping stays
	if err := checkSize(f, false); err != nil {
		return nil, nil, err
	}
	return mapFile(f, syscall.PROT_READ)
}

// checkSize makes sure that f is a file of one page. Reading a mapped page
// behind the end of a file ends the process.
func checkSize(f *os.File, emptyToo bool) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Size() != pageBytes && (info.Size() != 0 || !emptyToo) {
		return fmt.Errorf("%w: %v of %d bytes", ErrNotLeaseFile, info.Mode(), info.Size())
	}
	return nil
}

// mapped is a lease file mapped for writing.
type mapped struct {
	*words
	f      *os.File
	unmap  func() error
	onDisk bool
}

// mapForWriting opens the file at path, or makes it, full of zeros. It holds a
// lock on it until Close.
func mapForWriting(path string) (m *mapped, err error) {
	const ownerOnly fs.FileMode = 0o600
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, ownerOnly)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	m = &mapped{f: f}
	if err := checkSize(f, true); err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, ErrInUse
		}
		return nil, fmt.Errorf("lock: %w", err)
	}
	info, err := f.Stat() // again, now that nobody else makes it
	if err != nil {
		return nil, err
	}
	if info.Size() == 0 {
		// Written out, so that there is room for it: a page of a hole ends the
		// process when there is none.
		if _, err := f.WriteAt(make([]byte, pageBytes), 0); err != nil {
			return nil, errors.Join(err, f.Truncate(0))
		}
	}
	var fsys syscall.Statfs_t
	if err := syscall.Fstatfs(int(f.Fd()), &fsys); err != nil {
		return nil, fmt.Errorf("statfs: %w", err)
	}
	kind := uint32(fsys.Type) //nolint:gosec // a magic number; its sign depends on the machine
	m.onDisk = kind != tmpfsMagic && kind != ramfsMagic
	m.words, m.unmap, err = mapFile(f, syscall.PROT_READ|syscall.PROT_WRITE)
	return m, err
}

// Close gives mapping and lock up.
func (m *mapped) Close() error { return errors.Join(m.unmap(), m.f.Close()) }
