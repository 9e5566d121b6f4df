package jsonlstore

import (
	"bytes"

	"github.com/aiondb/aiondb-ha/internal/vfs"
)

// roomBytes is how much room is written ahead at a time. A batch that fits in
// it changes neither the length of the file nor which blocks are its own, so
// that its sync is one write to the disk. What is written twice and how long
// the one append waits that makes the room speak against more.
const roomBytes = 1 << 20

// blanks is what room is written with.
var blanks = bytes.Repeat([]byte{' '}, 64<<10)

// makeRoom writes blanks behind end, which is where the file ends, and returns
// where it ends now. The sync of the batch before them makes them durable, and
// only for the sake of speed: a crash may leave zeros in their place, or nothing.
// So a disk without room for them is no error.
func makeRoom(file vfs.File, end int64, room int) (size int64) {
	for size = end; room > 0; {
		n, err := file.WriteAt(blanks[:min(room, len(blanks))], size)
		size += int64(n)
		room -= n
		if err != nil || n == 0 {
			break
		}
	}
	return size
}

// isRoom tells whether text is blanks and nothing else.
func isRoom(text []byte) bool { return len(bytes.TrimLeft(text, " ")) == 0 }
