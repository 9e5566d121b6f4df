package fsm

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"
	"strings"

	"github.com/aiondb/aiondb-ha/fsm/command"
)

// A snapshot is a script of the commands that make the state, in text, one a
// line, each with the revision it leaves behind (0 for what has none):
//
//	aiondb-ha state 1 index 42 term 3
//	0 {"AddNode":{"node_id":1,"address":"10.0.0.1:7600"}}
//	0 {"AssignShard":{"table_id":7,"shard_id":0,"node_id":1}}
//	0 {"UpdateConfig":{"key":"k","value":"v"}}
//	17 {"KvWrite":{"key":[107],"value":[118]}}
//	end 4 crc 0badcafe
//
// Members come first, then shards, settings and keys, each sorted: the same
// state gives the same bytes. crc is the CRC-32C of all lines before the last.
// Reading one carries the script out under the same rules and limits as any
// other command, and then makes sure that the state it gave writes the same
// bytes again.
const (
	snapshotVersion = 1
	headerForm      = "aiondb-ha state %d index %d term %d\n"
	footerForm      = "end %d crc %08x\n"
	footerPrefix    = "end "
	// maxSnapshotLine bounds a line: a revision, a blank, a command, a newline.
	maxSnapshotLine = 20 + 1 + command.MaxCommandLen + 1
	snapshotBuffer  = 64 << 10
)

var (
	// ErrBadSnapshot is wrapped by every error about bytes that are no whole
	// and undamaged snapshot.
	ErrBadSnapshot = errors.New("snapshot is damaged")
	// ErrSnapshotVersion is wrapped by the error about a snapshot of a version
	// that this one cannot read.
	ErrSnapshotVersion = errors.New("snapshot of an unknown version: upgrade this node")
)

// castagnoli is read only.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// WriteSnapshot writes the state to w, in pieces of some 64 KiB. It holds one
// command's encoding in memory at a time. Errors are w's, wrapped.
func (s *State) WriteSnapshot(w io.Writer) error {
	out := snapshotWriter{to: bufio.NewWriterSize(w, snapshotBuffer)}
	out.line = fmt.Appendf(out.line[:0], headerForm, snapshotVersion, s.index, s.term)
	out.flushLine()
	for id, address := range s.members.all {
		out.record(0, command.AddNode{NodeID: id, Address: address})
	}
	for shard := range s.eachShard {
		out.record(0, command.AssignShard{TableID: shard.TableID, ShardID: shard.ShardID, NodeID: shard.NodeID})
	}
	for key, value := range s.settings.all {
		out.record(0, command.UpdateConfig{Key: key, Value: value})
	}
	for key, v := range s.kv.all {
		out.record(v.revision, command.KvWrite{Key: []byte(key), Value: v.data})
		if out.err != nil {
			break
		}
	}
	out.line = fmt.Appendf(out.line[:0], footerForm, out.records, out.crc)
	out.flushLine()
	if out.err == nil {
		out.err = out.to.Flush()
	}
	if out.err != nil {
		return fmt.Errorf("write snapshot: %w", out.err)
	}
	return nil
}

// snapshotWriter keeps the first error and writes nothing after it.
type snapshotWriter struct {
	to      *bufio.Writer
	line    []byte
	records int
	crc     uint32
	err     error
}

func (w *snapshotWriter) record(revision uint64, c command.Command) {
	if w.err != nil {
		return
	}
	w.line = append(strconv.AppendUint(w.line[:0], revision, 10), ' ')
	if w.line, w.err = command.Append(w.line, c); w.err != nil {
		return
	}
	w.line = append(w.line, '\n')
	w.records++
	w.flushLine()
}

func (w *snapshotWriter) flushLine() {
	if w.err != nil {
		return
	}
	w.crc = crc32.Update(w.crc, castagnoli, w.line)
	_, w.err = w.to.Write(w.line)
}

// ReadSnapshot reads a state that WriteSnapshot wrote, to the end of r. A
// snapshot that is cut short, damaged, out of order, against the rules or
// followed by anything is refused with an error wrapping ErrBadSnapshot that
// names the line; one of another version with one wrapping ErrSnapshotVersion.
// Errors of r are wrapped. Memory is bounded by the limits of the state and by
// one line.
func ReadSnapshot(r io.Reader) (*State, error) {
	in := snapshotReader{from: bufio.NewReaderSize(r, snapshotBuffer)}
	s, err := in.read()
	if err != nil {
		return nil, fmt.Errorf("read snapshot: line %d: %w", in.lines, err)
	}
	return s, nil
}

type snapshotReader struct {
	from  *bufio.Reader
	lines int // read so far
	buf   []byte
}

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrBadSnapshot}, args...)...)
}

func (r *snapshotReader) read() (*State, error) {
	header, err := r.next()
	if err != nil {
		return nil, err
	}
	index, term, err := parseHeader(header)
	if err != nil {
		return nil, err
	}
	crc := crc32.Update(0, castagnoli, header)
	s := NewState()
	for records := 0; ; records++ {
		line, err := r.next()
		if err != nil {
			return nil, err
		}
		if bytes.HasPrefix(line, []byte(footerPrefix)) {
			if want := fmt.Appendf(nil, footerForm, records, crc); !bytes.Equal(line, want) {
				return nil, damaged("checksum or count is not that of the lines before: found %.40q, want %q", line, want)
			}
			break
		}
		crc = crc32.Update(crc, castagnoli, line)
		if err := s.restoreRecord(line, index, term); err != nil {
			return nil, err
		}
	}
	if _, err := r.from.ReadByte(); err != io.EOF {
		if err != nil {
			return nil, err
		}
		return nil, damaged("something follows its last line")
	}
	s.index, s.term = index, term
	return s, s.checkForm(crc)
}

// next returns the next line with its newline; it is valid until the next call.
func (r *snapshotReader) next() ([]byte, error) {
	r.lines++
	r.buf = r.buf[:0]
	for {
		piece, err := r.from.ReadSlice('\n')
		if len(r.buf)+len(piece) > maxSnapshotLine {
			return nil, damaged("longer than %d bytes", maxSnapshotLine)
		}
		switch {
		case err == nil && len(r.buf) == 0:
			return piece, nil
		case err == nil || errors.Is(err, bufio.ErrBufferFull):
			r.buf = append(r.buf, piece...)
			if err == nil {
				return r.buf, nil
			}
		case err == io.EOF:
			return nil, damaged("ends before its last line")
		default:
			return nil, err
		}
	}
}

// parseHeader accepts exactly what headerForm writes.
func parseHeader(line []byte) (index, term uint64, err error) {
	var version int
	if _, err := fmt.Sscanf(string(line[:min(len(line), 128)]), headerForm, &version, &index, &term); err != nil {
		return 0, 0, damaged("no snapshot of a state: it begins with %.40q", line)
	}
	if version != snapshotVersion {
		return 0, 0, fmt.Errorf("%w: version %d, want %d", ErrSnapshotVersion, version, snapshotVersion)
	}
	if !bytes.Equal(line, fmt.Appendf(nil, headerForm, version, index, term)) {
		return 0, 0, damaged("first line %.40q", line)
	}
	return index, term, nil
}

// restoreRecord carries out one line of a snapshot that reaches to index and term.
func (s *State) restoreRecord(line []byte, index, term uint64) error {
	head, text, _ := bytes.Cut(bytes.TrimSuffix(line, []byte{'\n'}), []byte{' '})
	revision, err := strconv.ParseUint(string(head), 10, 64)
	if err != nil {
		return damaged("no revision in front of the command")
	}
	c, err := command.Decode(text)
	if err != nil {
		return damaged("%w", err)
	}
	if revision > index {
		return damaged("revision %d is above the index %d", revision, index)
	}
	s.index, s.term = revision, 0
	if kv, ok := c.(command.KvWrite); ok && bytes.HasPrefix(kv.Key, []byte(TimelinePrefix)) {
		// A fork was written in the term of its own epoch.
		epoch, err := strconv.ParseUint(strings.TrimPrefix(string(kv.Key), TimelinePrefix), 10, 64)
		if err != nil || epoch > term {
			return damaged("timeline %q in a state of term %d", kv.Key, term)
		}
		s.term = epoch
	}
	if r := s.carryOut(c); r.Refused != "" {
		return damaged("%s", r.Refused)
	} else if !r.Changed {
		return damaged("%s changes nothing", c.Name())
	}
	return nil
}

// checkForm makes sure that the state's own snapshot has the checksum crc
// in front of its last line: no line was out of order, or in another form.
func (s *State) checkForm(crc uint32) error {
	again := footerScanner{}
	if err := s.WriteSnapshot(&again); err != nil {
		return damaged("%w", err)
	}
	if want := fmt.Sprintf("crc %08x\n", crc); !strings.HasSuffix(string(again.tail), want) {
		return damaged("its lines are not in the one form and order they must have")
	}
	return nil
}

// footerScanner keeps the last bytes written to it.
type footerScanner struct{ tail []byte }

func (f *footerScanner) Write(p []byte) (int, error) {
	const keep = len("crc 00000000\n")
	f.tail = append(f.tail, p[max(0, len(p)-keep):]...)
	f.tail = append(f.tail[:0], f.tail[max(0, len(f.tail)-keep):]...)
	return len(p), nil
}
