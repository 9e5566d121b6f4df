package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aiondb/aiondb-ha/failover"
	"github.com/aiondb/aiondb-ha/fsm"
	"github.com/aiondb/aiondb-ha/protocol"
)

// The codes of errors. Programs decide by these and by the HTTP status, never
// by the text.
const (
	CodeNoQuorum       = "no_quorum"         // 503: too few voters; nothing was done
	CodeRefused        = "refused"           // 409: the cluster's state does not allow it; nothing was done
	CodeRevision       = "revision_mismatch" // 409: the key has another revision, which is given; nothing was done
	CodeUnknownOutcome = "unknown_outcome"   // 504: it may or may not have been done
	CodeNotPrimary     = "not_primary"       // 503: with primary and address, when known
	CodeNotLeader      = "not_leader"        // 503: with leader, when known; nothing was done
	CodeBadRequest     = "bad_request"       // 400, 405
	CodeTooLarge       = "too_large"         // 413
	CodeNotFound       = "not_found"         // 404
	CodeForbidden      = "forbidden"         // 403: see Guard
	CodeUnauthorized   = "unauthorized"      // 401: a token is needed, or another one
	CodeReadOnly       = "read_only"         // 403: the token may change nothing
	CodeTimeout        = "timeout"           // 504: a read did not finish in time
	CodeBusy           = "busy"              // 503: a limit of this API; nothing was done
	CodeClosed         = "closed"            // 503: the node is shutting down; nothing was done
	CodeHalted         = "halted"            // 503: the node cannot apply the log any more
	CodeInternal       = "internal"          // 500
)

// statusClientGone is logged by nobody and seen by nobody: the client left.
const statusClientGone = 499

// errorBody is the JSON of an error.
type errorBody struct {
	Error   string          `json:"error"`
	Code    string          `json:"code"`
	Leader  protocol.NodeID `json:"leader,omitempty"`
	Primary protocol.NodeID `json:"primary,omitempty"`
	Address string          `json:"address,omitempty"`
	// Revision is what the key has, 0 if it is not there; nil: not of that code.
	Revision *uint64 `json:"revision,omitempty"`
}

// apiError is an error that knows its answer.
type apiError struct {
	status int
	body   errorBody
}

func (e *apiError) Error() string { return e.body.Error }

func failf(status int, code, format string, args ...any) error {
	return newError(status, code, format, args...)
}

func newError(status int, code, format string, args ...any) *apiError {
	return &apiError{status, errorBody{Code: code, Error: fmt.Sprintf(format, args...)}}
}

func badRequest(format string, args ...any) error {
	return failf(http.StatusBadRequest, CodeBadRequest, format, args...)
}

// classify finds the answer to an error of the backend. Unknown comes first:
// whoever hears "no quorum" may think that nothing happened.
func classify(err error) (int, errorBody) {
	body := errorBody{Error: err.Error()}
	var (
		known      *apiError
		refused    *fsm.RefusedError
		differs    *fsm.RevisionError
		notLeader  *failover.NotLeaderError
		notPrimary *failover.NotPrimaryError
		tooLarge   *http.MaxBytesError
	)
	status := http.StatusServiceUnavailable
	switch {
	case errors.As(err, &known):
		return known.status, known.body
	case errors.Is(err, failover.ErrOutcomeUnknown):
		status, body.Code = http.StatusGatewayTimeout, CodeUnknownOutcome
	case errors.As(err, &differs):
		status, body.Code, body.Revision = http.StatusConflict, CodeRevision, &differs.Have
	case errors.As(err, &refused), errors.Is(err, failover.ErrBusy):
		status, body.Code = http.StatusConflict, CodeRefused
	case errors.As(err, &notPrimary):
		body.Code, body.Primary, body.Address = CodeNotPrimary, notPrimary.Primary, notPrimary.Address
	case errors.Is(err, failover.ErrNotPrimary):
		body.Code = CodeNotPrimary
	case errors.Is(err, failover.ErrNoQuorum):
		body.Code = CodeNoQuorum
	case errors.As(err, &notLeader):
		body.Code, body.Leader = CodeNotLeader, notLeader.Leader
	case errors.Is(err, failover.ErrNotLeader):
		body.Code = CodeNotLeader
	case errors.Is(err, fsm.ErrHalted):
		body.Code = CodeHalted
	case errors.Is(err, failover.ErrClosed):
		body.Code = CodeClosed
	case errors.As(err, &tooLarge):
		status, body.Code = http.StatusRequestEntityTooLarge, CodeTooLarge
		body.Error = fmt.Sprintf("the request body is too large: at most %d bytes", tooLarge.Limit)
	case errors.Is(err, context.DeadlineExceeded):
		status, body.Code = http.StatusGatewayTimeout, CodeTimeout
		body.Error = "no answer within the request's deadline: " + body.Error
	case errors.Is(err, context.Canceled):
		status, body.Code = statusClientGone, CodeTimeout
	default:
		status, body.Code = http.StatusInternalServerError, CodeInternal
	}
	return status, body
}

func (a *api) fail(w http.ResponseWriter, r *http.Request, err error) {
	status, body := classify(err)
	switch {
	case status == statusClientGone:
		return
	case status == http.StatusInternalServerError:
		a.log.Error("a request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	default:
		a.log.Debug("a request was not done", "method", r.Method, "path", r.URL.Path, "code", body.Code, "error", err)
	}
	writeError(w, status, body)
}

func writeError(w http.ResponseWriter, status int, body errorBody) {
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	_ = writeJSON(w, status, body)
}

// writeJSON answers with one JSON document and a line break. Its error is one
// of encoding; nothing was written then.
func writeJSON(w http.ResponseWriter, status int, document any) error {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(document); err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(buf.Len()))
	w.WriteHeader(status)
	_, _ = w.Write(buf.Bytes()) // a client that is gone needs no answer
	return nil
}

// request holds what the query string of every route may say.
type request struct {
	query       url.Values
	timeout     time.Duration
	consistency fsm.Consistency
}

// parse reads the query string. A parameter that the route does not know is an
// error: a misspelt ?stale would change what the answer means.
func parse(r *http.Request, params ...string) (request, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return request{}, badRequest("the query string cannot be read: %v", err)
	}
	for name, values := range query {
		if name != "timeout" && !slices.Contains(params, name) {
			return request{}, badRequest("unknown parameter %q: possible are %s", name, strings.Join(append(params, "timeout"), ", "))
		}
		if len(values) > 1 {
			return request{}, badRequest("parameter %q is given %d times: give it once", name, len(values))
		}
	}
	req := request{query: query, timeout: DefaultTimeout}
	if text := query.Get("timeout"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil || d <= 0 || d > MaxTimeout {
			return request{}, badRequest("timeout %q: want a duration such as 500ms or 2s, at most %s", text, MaxTimeout)
		}
		req.timeout = d
	}
	stale, err := req.flag("stale", false)
	if err != nil {
		return request{}, err
	}
	if stale {
		req.consistency = fsm.Stale
	}
	return req, nil
}

// flag reads a yes-or-no parameter; a bare ?name means true.
func (q request) flag(name string, otherwise bool) (bool, error) {
	if !q.query.Has(name) {
		return otherwise, nil
	}
	text := q.query.Get(name)
	if text == "" {
		return true, nil
	}
	on, err := strconv.ParseBool(text)
	if err != nil {
		return false, badRequest("parameter %s=%q: want true or false", name, text)
	}
	return on, nil
}

// context returns the request's context with its deadline.
func (q request) context(r *http.Request) (context.Context, context.CancelFunc) {
	return context.WithTimeout(r.Context(), q.timeout)
}

// readJSON reads the body into target: one object, no unknown field, at most
// MaxBodyLen bytes. An empty body leaves target as it is.
func readJSON(w http.ResponseWriter, r *http.Request, target any) error {
	body, err := readBody(w, r, MaxBodyLen)
	if err != nil || len(bytes.TrimSpace(body)) == 0 {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(target); err != nil {
		return badRequest("the request body is not what is wanted here: %s", strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return badRequest("the request body has more than one JSON value")
	}
	return nil
}

// readBody reads at most limit bytes of body; more is an error.
func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	if r.ContentLength > limit { // before it is sent
		return nil, &http.MaxBytesError{Limit: limit}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var tooLarge *http.MaxBytesError
	if err != nil && !errors.As(err, &tooLarge) {
		return nil, badRequest("the request body cannot be read: %v", err)
	}
	return body, err
}
