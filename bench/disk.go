package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"time"
)

// disk is the floor under every store: the same bytes, written with one write
// and one sync into a file that has all its blocks already, and read back with
// one read.
type disk struct {
	file *os.File
	at   int64
	size int64
	data payloads
	buf  []byte
}

// newDisk makes the file, with real zeros in all of its blocks.
func newDisk(name string, size int64, data payloads) (*disk, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	d := &disk{file: f, size: size, data: data}
	zeros := make([]byte, 1<<20)
	for at := int64(0); at < size; at += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros[:min(int64(len(zeros)), size-at)], at); err != nil {
			return nil, err
		}
	}
	return d, f.Sync()
}

func (d *disk) close() error { return d.file.Close() }

// append writes n payloads.
func (d *disk) append(n int) (time.Duration, error) {
	each := d.data.size()
	if need := n * each; len(d.buf) < need {
		d.buf = make([]byte, need)
	}
	buf := d.buf[:n*each]
	if d.at+int64(len(buf)) > d.size {
		d.at = 0
	}
	for i := range n {
		d.data.fill(buf[i*each:(i+1)*each], uint64(d.at/int64(each))+uint64(i)) //nolint:gosec // G115: an offset
	}
	start := time.Now()
	_, err := d.file.WriteAt(buf, d.at)
	if err == nil {
		err = datasync(d.file)
	}
	took := time.Since(start)
	d.at += int64(len(buf))
	return took, err
}

// read reads burstLen payloads at random.
func (d *disk) read(rng *rand.Rand) error {
	each := int64(d.data.size())
	slots := d.size / each
	for range burstLen {
		if _, err := d.file.ReadAt(make([]byte, each), rng.Int64N(slots)*each); err != nil {
			return fmt.Errorf("reading the disk's file: %w", err)
		}
	}
	return nil
}
