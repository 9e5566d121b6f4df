package jsonlstore

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"strconv"

	"github.com/aiondb/aiondb-ha/logstore"
)

// MaxStateBytes bounds raft_state.json.
const MaxStateBytes = 64 << 20

// stateAdvice is what to do about a damaged state file.
const stateAdvice = "the node's term and vote must not be guessed: put a good copy of the file back, " +
	"or, only while all other nodes run, move the node's state directory away and start it empty"

// The original's three fields come first, then ours; the checksum is last, on a line
// of its own, and covers everything before its comma.
const stateCRCField = ",\n  \"crc\": \""

// nobody is the candidate of a vote that is known to have been used up, but
// not on whom: no candidate's bytes equal it.
var nobody = []byte{}

// encodeState writes raft_state.json.
//
// voted_for is the vote of current_term, as the original reads it. Raft's own
// two values, the term of the last vote and the candidate's bytes, stand in
// last_vote_term and last_vote_cand; all other keys in stable. first_index and
// cut_after are about the log.
func encodeState(st *stableState) []byte {
	values := maps.Clone(st.values)
	term, hasTerm := takeUint64(values, logstore.KeyCurrentTerm)
	voteTerm, hasVoteTerm := takeUint64(values, logstore.KeyLastVoteTerm)
	candidate, hasCandidate := values[logstore.KeyLastVoteCand]
	delete(values, logstore.KeyLastVoteCand)
	if hasTerm && term == 0 {
		// Zero in current_term means that there is none.
		values[logstore.KeyCurrentTerm] = make([]byte, 8)
	}

	b := fmt.Appendf(nil, "{\n  \"current_term\": %d,\n  \"voted_for\": ", term)
	if hasCandidate && hasVoteTerm && voteTerm == term {
		b = strconv.AppendUint(b, voterID(candidate), 10)
	} else {
		b = append(b, "null"...)
	}
	b = fmt.Appendf(b, ",\n  \"commit_index\": %d", st.commit)
	if hasVoteTerm {
		b = fmt.Appendf(b, ",\n  \"last_vote_term\": %d", voteTerm)
	}
	if hasCandidate {
		b = append(b, ",\n  \"last_vote_cand\": "...)
		b = appendBase64(b, candidate)
	}
	if st.first > 0 {
		b = fmt.Appendf(b, ",\n  \"first_index\": %d", st.first)
	}
	if st.cut != nil {
		b = fmt.Appendf(b, ",\n  \"cut_after\": %d", *st.cut)
	}
	if len(values) > 0 {
		b = append(b, ",\n  \"stable\": {"...)
		for i, key := range slices.Sorted(maps.Keys(values)) {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(b, "\n    "...)
			b = appendBase64(b, []byte(key))
			b = append(b, ": "...)
			b = appendBase64(b, values[key])
		}
		b = append(b, "\n  }"...)
	}
	sum := crc32.Checksum(b, castagnoli)
	b = append(b, stateCRCField...)
	return fmt.Appendf(b, "%08x\"\n}\n", sum)
}

func takeUint64(values map[string][]byte, key string) (uint64, bool) {
	val, ok := values[key]
	delete(values, key)
	if !ok {
		return 0, false
	}
	return binary.BigEndian.Uint64(val), true
}

func appendBase64(dst, b []byte) []byte {
	dst = append(dst, '"')
	dst = base64.StdEncoding.AppendEncode(dst, b)
	return append(dst, '"')
}

// voterID reads a candidate as "ID" or "ID@address". Anything else is 0, which
// is nobody's ID: the original then takes the vote for used up.
func voterID(candidate []byte) uint64 {
	digits, _, _ := bytes.Cut(candidate, []byte("@"))
	id, err := parseUint(digits)
	if err != nil {
		return 0
	}
	return id
}

// stateFields is what stands in the file, as JSON.
type stateFields struct {
	term, vote, commit, voteTerm, candidate, first, cut, stable, crc []byte
	unknown                                                          string
}

// decodeState reads raft_state.json, whoever wrote it. A file without a
// checksum must hold the original's three fields and nothing else.
func decodeState(text []byte) (*stableState, error) {
	if len(text) > MaxStateBytes {
		return nil, fmt.Errorf("it is longer than %d bytes", MaxStateBytes)
	}
	summed, err := checkStateCRC(text)
	if err != nil {
		return nil, err
	}
	var f stateFields
	if err := eachField(text, f.set); err != nil {
		return nil, err
	}
	if f.term == nil || f.commit == nil {
		return nil, errors.New("current_term or commit_index is missing")
	}
	if !summed {
		if f.crc != nil {
			return nil, errChecksum
		}
		if f.voteTerm != nil || f.candidate != nil || f.first != nil || f.cut != nil || f.stable != nil || f.unknown != "" {
			return nil, errors.New("further fields, but no crc")
		}
	}
	st := &stableState{values: make(map[string][]byte)}
	term, err := parseUint(f.term)
	if err != nil {
		return nil, fmt.Errorf("current_term: %w", err)
	}
	if st.commit, err = parseUint(f.commit); err != nil {
		return nil, fmt.Errorf("commit_index: %w", err)
	}
	if term > 0 {
		putUint64(st.values, logstore.KeyCurrentTerm, term)
	}
	if st.foreign = !summed; st.foreign {
		return st, f.originals(st, term)
	}
	return st, f.ours(st)
}

// checkStateCRC tells whether the file ends in a checksum, and fails if that
// does not fit.
func checkStateCRC(text []byte) (summed bool, err error) {
	trimmed := trimBlanks(text)
	i := bytes.LastIndex(trimmed, []byte(stateCRCField))
	if i < 0 {
		return false, nil
	}
	rest := trimmed[i+len(stateCRCField):]
	if len(rest) != crcDigits+len("\"\n}") || string(rest[crcDigits:]) != "\"\n}" {
		return false, errChecksum
	}
	sum, ok := parseSum(rest[:crcDigits])
	if !ok || crc32.Checksum(trimmed[:i], castagnoli) != sum {
		return false, errChecksum
	}
	return true, nil
}

func (f *stateFields) set(key, value []byte) error {
	var field *[]byte
	switch string(key) {
	case "current_term":
		field = &f.term
	case "voted_for":
		field = &f.vote
	case "commit_index":
		field = &f.commit
	case "last_vote_term":
		field = &f.voteTerm
	case "last_vote_cand":
		field = &f.candidate
	case "first_index":
		field = &f.first
	case "cut_after":
		field = &f.cut
	case "stable":
		field = &f.stable
	case "crc":
		field = &f.crc
	default:
		f.unknown = string(key)
		return nil
	}
	if *field != nil {
		return fmt.Errorf("field %q stands twice", key)
	}
	*field = value
	return nil
}

// originals reads a state of the original: a vote of the current term, or
// none.
func (f *stateFields) originals(st *stableState, term uint64) error {
	if f.vote == nil || string(f.vote) == "null" {
		return nil
	}
	id, err := parseUint(f.vote)
	if err != nil {
		return fmt.Errorf("voted_for: %w", err)
	}
	putUint64(st.values, logstore.KeyLastVoteTerm, term)
	st.values[logstore.KeyLastVoteCand] = strconv.AppendUint(nil, id, 10)
	return nil
}

// ours reads what stands beside the original's fields; voted_for follows from
// it.
func (f *stateFields) ours(st *stableState) error {
	if f.voteTerm != nil {
		term, err := parseUint(f.voteTerm)
		if err != nil {
			return fmt.Errorf("last_vote_term: %w", err)
		}
		putUint64(st.values, logstore.KeyLastVoteTerm, term)
	}
	if f.candidate != nil {
		candidate, err := parseBytes(f.candidate)
		if err != nil {
			return fmt.Errorf("last_vote_cand: %w", err)
		}
		st.values[logstore.KeyLastVoteCand] = candidate
	}
	if f.first != nil {
		first, err := parseUint(f.first)
		if err != nil {
			return fmt.Errorf("first_index: %w", err)
		}
		st.first = first
	}
	if f.cut != nil {
		after, err := parseUint(f.cut)
		if err != nil {
			return fmt.Errorf("cut_after: %w", err)
		}
		st.cut = &after
	}
	if f.stable == nil {
		return nil
	}
	return eachField(f.stable, func(key, value []byte) error {
		k, err := strictBase64.DecodeString(string(key))
		if err != nil {
			return fmt.Errorf("stable: key %.40q is not base64", key)
		}
		v, err := parseBytes(value)
		if err != nil {
			return fmt.Errorf("stable: value of %.40q: %w", key, err)
		}
		switch string(k) {
		case logstore.KeyCurrentTerm:
			if len(v) != 8 || !bytes.Equal(v, make([]byte, 8)) || st.values[logstore.KeyCurrentTerm] != nil {
				return errors.New("stable: CurrentTerm contradicts current_term")
			}
		case logstore.KeyLastVoteTerm, logstore.KeyLastVoteCand:
			return fmt.Errorf("stable: %s has a field of its own", k)
		}
		st.values[string(k)] = v
		return nil
	})
}

func putUint64(values map[string][]byte, key string, n uint64) {
	values[key] = binary.BigEndian.AppendUint64(nil, n)
}
