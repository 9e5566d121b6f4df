package httpapi

import (
	"context"
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/aiondb/aiondb-ha/fsm"
	"github.com/aiondb/aiondb-ha/fsm/command"
)

// entryBody is the JSON of a key and its value. Bytes that are not UTF-8 are
// given as base64 (standard, padded) under the other name; never both.
type entryBody struct {
	Key         *string `json:"key,omitempty"`
	KeyBase64   *string `json:"key_base64,omitempty"`
	Value       *string `json:"value,omitempty"`
	ValueBase64 *string `json:"value_base64,omitempty"`
	Revision    uint64  `json:"revision"` // index of the log entry that last changed it
}

func newEntryBody(e fsm.Entry) entryBody {
	b := entryBody{Revision: e.Revision}
	b.Key, b.KeyBase64 = textOrBase64(e.Key)
	b.Value, b.ValueBase64 = textOrBase64(e.Value)
	return b
}

// textOrBase64 copies raw.
func textOrBase64(raw []byte) (text, encoded *string) {
	if utf8.Valid(raw) {
		s := string(raw)
		return &s, nil
	}
	s := base64.StdEncoding.EncodeToString(raw)
	return nil, &s
}

func (a *api) kvGet(w http.ResponseWriter, r *http.Request, key string) error {
	q, err := parse(r, "stale")
	if err != nil {
		return err
	}
	var answer struct {
		entryBody
		fsm.Freshness
	}
	found := false
	answer.Freshness, err = a.read(r, q, func(s *fsm.State) {
		var e fsm.Entry
		if e, found = s.KVGet([]byte(key)); found {
			answer.entryBody = newEntryBody(e)
		}
	})
	if err != nil {
		return err
	}
	if !found {
		return failf(http.StatusNotFound, CodeNotFound, "no key %q", key)
	}
	return writeJSON(w, http.StatusOK, answer)
}

func (a *api) kvPut(w http.ResponseWriter, r *http.Request, key string) error {
	q, revision, err := parseWrite(r)
	if err != nil {
		return err
	}
	if err := refuseReserved(key); err != nil {
		return err
	}
	value, err := readBody(w, r, MaxValueLen)
	if err != nil {
		return err
	}
	return a.kvWrite(w, r, q, command.KvWrite{Key: []byte(key), Value: value}, revision)
}

func (a *api) kvDelete(w http.ResponseWriter, r *http.Request, key string) error {
	q, revision, err := parseWrite(r)
	if err != nil {
		return err
	}
	if err := refuseReserved(key); err != nil {
		return err
	}
	return a.kvWrite(w, r, q, command.KvWrite{Key: []byte(key), Delete: true}, revision)
}

// paramRevision makes a write of a key depend on the key's revision.
const paramRevision = "if_revision"

// parseWrite is parse for the write of a key. revision is nil if the write does
// not depend on one.
func parseWrite(r *http.Request) (q request, revision *uint64, err error) {
	if q, err = parse(r, paramRevision); err != nil || !q.query.Has(paramRevision) {
		return q, nil, err
	}
	text := q.query.Get(paramRevision)
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return q, nil, badRequest("%s %q: want the revision that the key must have, as reads give it, or 0 if it must not be there", paramRevision, text)
	}
	return q, &n, nil
}

// kvWrite commits the write of a key, if the key has the revision; nil: in any
// case.
func (a *api) kvWrite(w http.ResponseWriter, r *http.Request, q request, c command.KvWrite, revision *uint64) error {
	if revision == nil {
		return a.propose(w, r, q, c)
	}
	return a.commit(w, r, q, func(ctx context.Context) (fsm.Result, error) { return a.backend.ProposeIf(ctx, c, *revision) })
}

// refuseReserved keeps clients out of the keys the cluster keeps for itself. The
// node refuses them too; asking here saves the way to the leader.
func refuseReserved(key string) error {
	if strings.HasPrefix(key, fsm.ReservedPrefix) {
		return failf(http.StatusConflict, CodeRefused, "keys under %q belong to the cluster itself: choose another", fsm.ReservedPrefix)
	}
	return nil
}

func (a *api) kvList(w http.ResponseWriter, r *http.Request) error {
	q, err := parse(r, "prefix", "limit", "stale", "all")
	if err != nil {
		return err
	}
	all, err := q.flag("all", false)
	if err != nil {
		return err
	}
	prefix := q.query.Get("prefix")
	// The cluster's own keys are shown to those who ask for them.
	all = all || strings.HasPrefix(prefix, fsm.ReservedPrefix)
	limit := DefaultListLimit
	if text := q.query.Get("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > MaxListLimit {
			return badRequest("limit %q: want a number from 1 to %d", text, MaxListLimit)
		}
	}
	answer := struct {
		Entries []entryBody `json:"entries"`
		More    bool        `json:"more"` // there are further entries: narrow the prefix or raise the limit
		fsm.Freshness
	}{Entries: []entryBody{}}
	answer.Freshness, err = a.read(r, q, func(s *fsm.State) {
		size := 0
		s.KVScan([]byte(prefix), func(key string, entry func() fsm.Entry) bool {
			if !all && strings.HasPrefix(key, fsm.ReservedPrefix) {
				return true
			}
			if answer.More = len(answer.Entries) == limit; answer.More {
				return false
			}
			e := entry()
			size += len(e.Key) + len(e.Value)
			if answer.More = size > MaxListBytes && len(answer.Entries) > 0; answer.More {
				return false
			}
			answer.Entries = append(answer.Entries, newEntryBody(e))
			return true
		})
	})
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, answer)
}

func (a *api) configList(w http.ResponseWriter, r *http.Request) error {
	q, err := parse(r, "stale")
	if err != nil {
		return err
	}
	answer := struct {
		Settings []fsm.Setting `json:"settings"`
		fsm.Freshness
	}{Settings: []fsm.Setting{}}
	answer.Freshness, err = a.read(r, q, func(s *fsm.State) { answer.Settings = append(answer.Settings, s.Settings()...) })
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, answer)
}

func (a *api) configGet(w http.ResponseWriter, r *http.Request, name string) error {
	q, err := parse(r, "stale")
	if err != nil {
		return err
	}
	var answer struct {
		fsm.Setting
		fsm.Freshness
	}
	answer.Key = name
	found := false
	answer.Freshness, err = a.read(r, q, func(s *fsm.State) {
		answer.Value, found = s.Config(answer.Key)
	})
	if err != nil {
		return err
	}
	if !found {
		return failf(http.StatusNotFound, CodeNotFound, "no setting %q", answer.Key)
	}
	return writeJSON(w, http.StatusOK, answer)
}

func (a *api) configPut(w http.ResponseWriter, r *http.Request, name string) error {
	q, err := parse(r)
	if err != nil {
		return err
	}
	value, err := readBody(w, r, MaxValueLen)
	if err != nil {
		return err
	}
	if !utf8.ValidString(name) || !utf8.Valid(value) {
		return badRequest("a setting is text: name and value must be UTF-8")
	}
	return a.propose(w, r, q, command.UpdateConfig{Key: name, Value: string(value)})
}
