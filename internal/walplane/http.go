package walplane

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/aiondb/aiondb-ha/fencing"
	"github.com/aiondb/aiondb-ha/protocol"
)

// Bounds of a request.
const (
	DefaultTimeout = 5 * time.Second
	MaxTimeout     = 60 * time.Second

	dataPath = "/v1/data"

	// HeaderValid tells for how many ms after the request arrived a primary's
	// answer may be taken for given in time: see Handler.
	HeaderValid = "Aiondb-Ha-Valid-Ms"
)

// errBadRequest is wrapped by what a client did wrong.
var errBadRequest = errors.New("bad request")

// Handler returns the HTTP side of the database.
//
//	PUT    /v1/data/{key}   the body is the value   200 {"epoch","lsn"}
//	DELETE /v1/data/{key}                           200 {"epoch","lsn"}
//	GET    /v1/data/{key}                           200 {"key","value","epoch","lsn"}
//	GET    /v1/data?from=N                          200 the committed log, a JSON line a record; see dump
//
// The key is one path-escaped string (a slash may stand for itself). A value
// that is not UTF-8 comes as "value_base64" instead of "value". ?timeout=2s
// bounds the request (5 s if not given, at most 60 s). Reads are current and
// need the primary; with ?stale=true any node answers, with "stale": true and
// "age_ms", the bound on what may be missing, -1 if unknown.
//
// What needs the primary is answered with the header Aiondb-Ha-Valid-Ms, if the
// primacy is leased: whole milliseconds since the request arrived. A client
// notes the time before it sends the request, and takes an answer that has not
// come within them as one of unknown outcome: the process may have been stopped
// between the last look at the lease and the sending, and another primary may
// have answered others since. Who does without this still loses no write and
// sees no read that was not current at some moment of its waiting; but two
// primaries may be heard at the same time. See fencing.ValidFor.
//
// Errors are {"error","code"}: not_primary (503, with "primary" and "address"
// when known), no_quorum (503), timeout (504): nothing was done.
// unknown_outcome (504): a write that may or may not survive. not_found (404),
// bad_request (400), too_large (413), log_full (507), internal (500).
//
// A mux in front must not clean paths, or keys with "//" or ".." will not
// get here as they are.
func (db *DB) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := db.serveHTTP(answer{w, db.cfg.Clock, db.cfg.Clock()}, r); err != nil {
			writeError(w, err)
		}
	})
}

// answer is what a request is answered on, and when it arrived.
type answer struct {
	http.ResponseWriter
	clock   func() time.Duration // the guard's
	arrived time.Duration
}

// validUntil adds HeaderValid, rounded down, to an answer that the guard holds
// valid until then.
func (w answer) validUntil(until time.Duration) {
	if valid := fencing.ValidFor(w.arrived, w.clock(), until); valid != fencing.NoDeadline {
		w.Header().Set(HeaderValid, strconv.FormatInt(valid.Milliseconds(), 10))
	}
}

func (db *DB) serveHTTP(w answer, r *http.Request) error {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return fmt.Errorf("%w: %w", errBadRequest, err)
	}
	timeout, err := parseTimeout(query.Get("timeout"))
	if err != nil {
		return err
	}
	stale, err := parseBool(query.Get("stale"))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	path := r.URL.EscapedPath()
	if path == dataPath || path == dataPath+"/" {
		if r.Method != http.MethodGet {
			return methodNotAllowed(w, "GET")
		}
		return db.serveDump(ctx, w, query.Get("from"), stale)
	}
	escaped, ok := strings.CutPrefix(path, dataPath+"/")
	if !ok {
		return fmt.Errorf("%w: want %s/{key}", ErrNotFound, dataPath)
	}
	key, err := url.PathUnescape(escaped)
	if err != nil || !utf8.ValidString(key) {
		return fmt.Errorf("%w: the key is not path-escaped UTF-8", errBadRequest)
	}
	switch r.Method {
	case http.MethodGet:
		return db.serveGet(ctx, w, key, stale)
	case http.MethodPut:
		value, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxValueLen))
		if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
			return fmt.Errorf("%w: the limit of a value is %d bytes", ErrTooLarge, MaxValueLen)
		}
		if err != nil {
			return fmt.Errorf("%w: read the value: %w", errBadRequest, err)
		}
		return db.serveWrite(ctx, w, record{kind: kindPut, key: []byte(key), value: value})
	case http.MethodDelete:
		return db.serveWrite(ctx, w, record{kind: kindDelete, key: []byte(key)})
	}
	return methodNotAllowed(w, "GET, PUT, DELETE")
}

func (db *DB) serveWrite(ctx context.Context, w answer, rec record) error {
	ack, until, err := db.submit(ctx, rec)
	if err != nil {
		return err
	}
	w.validUntil(until)
	return writeJSON(w, http.StatusOK, ack)
}

// entryJSON is the answer to a GET.
type entryJSON struct {
	Key string `json:"key"`
	valueJSON
	Epoch protocol.Epoch `json:"epoch"`
	LSN   protocol.LSN   `json:"lsn"`
	Stale bool           `json:"stale,omitempty"`
	AgeMS *int64         `json:"age_ms,omitempty"`
}

// valueJSON holds a value in one of two forms.
type valueJSON struct {
	Value  *string `json:"value,omitempty"`
	Base64 *string `json:"value_base64,omitempty"`
}

func newValueJSON(value []byte) valueJSON {
	if utf8.Valid(value) {
		s := string(value)
		return valueJSON{Value: &s}
	}
	s := base64.StdEncoding.EncodeToString(value)
	return valueJSON{Base64: &s}
}

func (db *DB) serveGet(ctx context.Context, w answer, key string, stale bool) error {
	entry := entryJSON{Key: key}
	var e Entry
	var err error
	if stale {
		var age time.Duration
		if e, age, err = db.GetStale(key); err == nil {
			ms := ageMS(age)
			entry.Stale, entry.AgeMS = true, &ms
		}
	} else {
		var until time.Duration
		if e, until, err = db.get(ctx, key); err == nil || errors.Is(err, ErrNotFound) {
			w.validUntil(until)
		}
	}
	if err != nil {
		return err
	}
	entry.valueJSON, entry.Epoch, entry.LSN = newValueJSON(e.Value), e.Epoch, e.LSN
	return writeJSON(w, http.StatusOK, entry)
}

// ageMS rounds up: the bound must hold.
func ageMS(age time.Duration) int64 {
	if age < 0 {
		return -1
	}
	return int64((age + time.Millisecond - 1) / time.Millisecond)
}

func parseTimeout(s string) (time.Duration, error) {
	if s == "" {
		return DefaultTimeout, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 || d > MaxTimeout {
		return 0, fmt.Errorf("%w: timeout %q: want a duration such as 2s, more than 0 and at most %v", errBadRequest, s, MaxTimeout)
	}
	return d, nil
}

func parseBool(s string) (bool, error) {
	if s == "" {
		return false, nil
	}
	b, err := strconv.ParseBool(s)
	if err != nil {
		return false, fmt.Errorf("%w: stale %q: want true or false", errBadRequest, s)
	}
	return b, nil
}

func methodNotAllowed(w http.ResponseWriter, allow string) error {
	w.Header().Set("Allow", allow)
	return writeJSON(w, http.StatusMethodNotAllowed, errorJSON{Error: "method not allowed, want " + allow, Code: "bad_request"})
}

func writeJSON(w http.ResponseWriter, status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // a client that left needs no answer
	return nil
}

type errorJSON struct {
	Error   string          `json:"error"`
	Code    string          `json:"code"`
	Primary protocol.NodeID `json:"primary,omitempty"`
	Address string          `json:"address,omitempty"`
}

// writeError sends err under the code a client decides by. What is unknown
// comes first: such an error often wraps another of the list.
func writeError(w http.ResponseWriter, err error) {
	answer := errorJSON{Error: err.Error(), Code: "internal"}
	status := http.StatusInternalServerError
	notPrimary := (*NotPrimaryError)(nil)
	switch {
	case errors.Is(err, ErrUnknownOutcome):
		status, answer.Code = http.StatusGatewayTimeout, "unknown_outcome"
	case errors.As(err, &notPrimary):
		status, answer.Code = http.StatusServiceUnavailable, "not_primary"
		answer.Primary, answer.Address = notPrimary.Primary, notPrimary.Address
	case errors.Is(err, ErrNoQuorum):
		status, answer.Code = http.StatusServiceUnavailable, "no_quorum"
	case errors.Is(err, errBadRequest), errors.Is(err, ErrBadKey):
		status, answer.Code = http.StatusBadRequest, "bad_request"
	case errors.Is(err, ErrNotFound):
		status, answer.Code = http.StatusNotFound, "not_found"
	case errors.Is(err, ErrTooLarge):
		status, answer.Code = http.StatusRequestEntityTooLarge, "too_large"
	case errors.Is(err, ErrLogFull):
		status, answer.Code = http.StatusInsufficientStorage, "log_full"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		status, answer.Code = http.StatusGatewayTimeout, "timeout"
	}
	_ = writeJSON(w, status, answer) // errorJSON always marshals
}
