package walplane

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"

	"github.com/aiondb/aiondb-ha/protocol"
)

const (
	// maxDumpBytes is about how much one page of a dump holds; a single line
	// may go beyond.
	maxDumpBytes = 4 << 20

	// HeaderNext tells the LSN to ask for next.
	HeaderNext = "Aiondb-Ha-Next-Lsn"
	// HeaderCommit tells the highest LSN known to be committed.
	HeaderCommit = "Aiondb-Ha-Commit-Lsn"
	// HeaderAge tells, with stale=true, how old the answer is at most, in ms; -1 if unknown.
	HeaderAge = "Aiondb-Ha-Age-Ms"
)

// lineJSON is one record of a dump.
type lineJSON struct {
	LSN   protocol.LSN   `json:"lsn"`
	Epoch protocol.Epoch `json:"epoch"`
	Key   string         `json:"key"`
	valueJSON
	Deleted bool `json:"deleted,omitempty"`
}

// serveDump answers with the puts and deletes of the committed log from an LSN
// on, oldest first, one JSON object a line, for comparing with a record of what
// was acknowledged:
//
//	{"lsn":17,"epoch":3,"key":"k","value":"v"}
//	{"lsn":18,"epoch":3,"key":"k","deleted":true}
//
// The begin records of epochs are left out, so LSNs have gaps. One answer holds
// about maxDumpBytes; ask again from HeaderNext (the last line's LSN plus one
// does too) until an answer is empty: then it was everything committed.
func (db *DB) serveDump(ctx context.Context, w answer, fromText string, stale bool) error {
	from := uint64(1)
	if fromText != "" {
		var err error
		if from, err = strconv.ParseUint(fromText, 10, 64); err != nil || from == 0 {
			return fmt.Errorf("%w: from %q: want an LSN, from 1 up", errBadRequest, fromText)
		}
	}
	var p page
	look := func() (err error) {
		p, err = db.dump(ctx, protocol.LSN(from))
		return err
	}
	if stale {
		age, err := db.Age()
		if err != nil {
			return err
		}
		w.Header().Set(HeaderAge, strconv.FormatInt(ageMS(age), 10))
		if err := look(); err != nil {
			return err
		}
	} else {
		until, err := db.current(ctx, look)
		if err != nil {
			return err
		}
		w.validUntil(until)
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set(HeaderNext, strconv.FormatUint(uint64(p.next), 10))
	w.Header().Set(HeaderCommit, strconv.FormatUint(uint64(p.commit), 10))
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(p.lines) // a client that left needs no answer
	return nil
}

// page is a part of a dump.
type page struct {
	lines  []byte
	next   protocol.LSN
	commit protocol.LSN
}

// dump reads a page of the committed log. A page without lines is the end.
func (db *DB) dump(ctx context.Context, from protocol.LSN) (page, error) {
	db.mu.Lock()
	commit, err := db.commit, db.usable()
	db.mu.Unlock()
	if err != nil {
		return page{}, err
	}
	p := page{next: from, commit: commit}
	if from > commit {
		return p, nil
	}
	var c cursor
	if err := db.wal.seek(&c, from); err != nil {
		return page{}, err
	}
	var out bytes.Buffer
	lines := json.NewEncoder(&out)
	for p.next <= commit && out.Len() < maxDumpBytes {
		if err := context.Cause(ctx); err != nil {
			return page{}, err
		}
		records, err := db.wal.read(&c, commit, maxBatchBytes)
		if err != nil {
			return page{}, err
		}
		for _, r := range records {
			if out.Len() >= maxDumpBytes {
				break
			}
			p.next = r.lsn + 1
			if r.kind == kindBegin {
				continue
			}
			line := lineJSON{LSN: r.lsn, Epoch: r.epoch, Key: string(r.key), Deleted: r.kind == kindDelete}
			if r.kind == kindPut {
				line.valueJSON = newValueJSON(r.value)
			}
			if err := lines.Encode(line); err != nil {
				return page{}, err
			}
		}
	}
	p.lines = out.Bytes()
	return p, nil
}
