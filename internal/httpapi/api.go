// Package httpapi is the HTTP face of a node: JSON for programs, probes for
// load balancers, metrics for Prometheus, a page for people.
//
//	GET    /v1/status  /v1/nodes  /v1/shards  /v1/config  /v1/config/{key}
//	GET    /v1/kv?prefix=&limit=&all=       /v1/kv/{key}
//	PUT    /v1/kv/{key}  /v1/config/{key}   the body is the value, as it is
//	DELETE /v1/kv/{key}                     PUT and DELETE with ?if_revision=N: only if the key has it; 0: if it is not there
//	POST   /v1/shards/assign  /v1/shards/transfer  /v1/nodes  /v1/switchover
//	GET    /v1/pause                        POST: pause, or {"node": N} into maintenance; DELETE ?node=N: take it back
//	POST   /v1/failover                     permit a node to take over once, in spite of a pause or its lag
//	DELETE /v1/nodes/{id}
//	GET    /v1/events                       Server-Sent Events; ?follow=false: what is there
//	GET    /primary /replica /leader /health /ready      200 or 503
//	GET    /metrics   /
//	GET    POST   DELETE   /v1/session      who am I; log in with {"token"}, log out
//
// What each needs is said beside its handler: see Scope and Guard.
//
// Every read of replicated state says how fresh it is (stale, age_ms, index);
// it is linearizable unless ?stale=true. Every request ends by ?timeout= (2s,
// 500ms, …). Every error is {"error": …, "code": …} with one of the Code
// constants.
//
// The package holds no state of the cluster and starts no goroutine that
// outlives its request.
package httpapi

import (
	"context"
	"crypto/rand"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/aiondb/aiondb-ha/failover"
	"github.com/aiondb/aiondb-ha/fsm"
	"github.com/aiondb/aiondb-ha/fsm/command"
	"github.com/aiondb/aiondb-ha/protocol"
)

// Bounds of what a client may ask.
const (
	// DefaultTimeout is a request's deadline without ?timeout=.
	DefaultTimeout = 5 * time.Second
	// MaxTimeout is the longest deadline that can be asked for.
	MaxTimeout = 60 * time.Second
	// MaxKeyLen and MaxValueLen bound a key and a value, in bytes. A byte may
	// take four in the log's JSON, and an entry must fit a Raft message.
	MaxKeyLen   = 1 << 10
	MaxValueLen = 128 << 10
	// MaxBodyLen bounds a JSON request body, in bytes.
	MaxBodyLen = 64 << 10
	// DefaultListLimit and MaxListLimit bound the entries of one list.
	DefaultListLimit = 100
	MaxListLimit     = 1000
	// MaxListBytes bounds the keys and values of one list, in bytes: a longer
	// list ends early and says so.
	MaxListBytes = 4 << 20
	// MaxStreams bounds the event streams open at once, MaxInFlight the other
	// requests.
	MaxStreams  = 64
	MaxInFlight = 256
)

const (
	// heartbeatInterval is how often an idle event stream sends a comment, so
	// that both ends notice a dead connection.
	heartbeatInterval = 5 * time.Second
	// streamWriteTimeout is how long one write to an event stream may take.
	streamWriteTimeout = 10 * time.Second
)

// The probes Backend.Is is asked.
const (
	ProbePrimary = "primary"
	ProbeReplica = "replica"
	ProbeLeader  = "leader"
	ProbeHealth  = "health"
	ProbeReady   = "ready"
)

// Backend is what the API serves. All methods are called concurrently.
type Backend interface {
	// Status and Nodes return values that encoding/json can write.
	Status() any
	Nodes() any
	// Propose commits a command. A context that ends while the outcome is open
	// gives an error that is failover.ErrOutcomeUnknown.
	Propose(ctx context.Context, c command.Command) (fsm.Result, error)
	// ProposeIf commits a write if its key has the revision, 0 if it is not
	// there; otherwise the error is a *fsm.RevisionError.
	ProposeIf(ctx context.Context, write command.KvWrite, revision uint64) (fsm.Result, error)
	// Read calls read once, with a state that is not kept afterwards.
	Read(ctx context.Context, c fsm.Consistency, read func(*fsm.State)) (fsm.Freshness, error)
	// Switchover hands the primacy to a node; protocol.NoNode: to the best one.
	Switchover(ctx context.Context, to protocol.NodeID) error
	Ruler
	// Journal returns the records kept with a number above after, oldest first.
	Journal(after uint64) []failover.Record
	// Events delivers what is recorded from now on until ctx ends or the node
	// closes.
	Events(ctx context.Context) <-chan failover.Record
	// Is answers one of the probes, with the reason.
	Is(probe string) (ok bool, why string)
	Metrics() []Metric
}

type api struct {
	backend   Backend
	guard     *Guard
	table     map[string]tableRow // by pattern of the mux
	log       hclog.Logger
	mux       *http.ServeMux
	page      page
	boot      string        // tells event numbers of this process from those of an earlier one
	heartbeat time.Duration // see heartbeatInterval
	streams   chan struct{} // one token per open event stream
	inFlight  chan struct{} // one token per other request
}

// tableRow is a route and the scope it needs.
type tableRow struct {
	need   Scope
	answer route
}

// New returns the handler of the whole API, with guard before it. It is safe for
// concurrent use.
func New(b Backend, guard *Guard, logger hclog.Logger) http.Handler {
	a := newAPI(b, guard, logger)
	return guard.Wrap(a.need, a)
}

func newAPI(b Backend, guard *Guard, logger hclog.Logger) *api {
	if logger == nil {
		logger = hclog.NewNullLogger()
	}
	a := &api{
		backend:   b,
		guard:     guard,
		log:       logger,
		mux:       http.NewServeMux(),
		page:      newPage(),
		boot:      rand.Text()[:8],
		heartbeat: heartbeatInterval,
		streams:   make(chan struct{}, MaxStreams),
		inFlight:  make(chan struct{}, MaxInFlight),
	}
	a.table = map[string]tableRow{
		"GET /v1/status":           {ScopeRead, a.status},
		"GET /v1/nodes":            {ScopeRead, a.nodes},
		"POST /v1/nodes":           {ScopeAdmin, a.nodeAdd},
		"DELETE /v1/nodes/{id}":    {ScopeAdmin, a.nodeRemove},
		"GET /v1/shards":           {ScopeRead, a.shards},
		"POST /v1/shards/assign":   {ScopeAdmin, a.shardAssign},
		"POST /v1/shards/transfer": {ScopeAdmin, a.shardTransfer},
		"POST /v1/switchover":      {ScopeAdmin, a.switchover},
		"GET /v1/pause":            {ScopeRead, a.rules},
		"POST /v1/pause":           {ScopeAdmin, a.pause},
		"DELETE /v1/pause":         {ScopeAdmin, a.resume},
		"POST /v1/failover":        {ScopeAdmin, a.permit},
		"GET /v1/config":           {ScopeRead, a.configList},
		"GET /v1/kv":               {ScopeRead, a.kvList},
		"GET /v1/events":           {ScopeRead, a.events},
		"GET /metrics":             {ScopeRead, a.metrics},
		"GET /{$}":                 {ScopePublic, a.dashboard}, // holds no data, asks for it
		"GET /v1/session":          {ScopePublic, a.sessionGet},
		"POST /v1/session":         {ScopePublic, a.sessionBegin},
		"DELETE /v1/session":       {ScopePublic, a.sessionEnd},
	}
	for _, probe := range []string{ProbePrimary, ProbeReplica, ProbeLeader, ProbeHealth, ProbeReady} {
		a.table["GET /"+probe] = tableRow{ScopePublic, a.probe(probe)}
		a.table["OPTIONS /"+probe] = tableRow{ScopePublic, a.probe(probe)} // what some load balancers ask with
	}
	for pattern, row := range a.table {
		if pattern == "GET /v1/events" {
			a.mux.Handle(pattern, a.handler(row.answer)) // bounded by streams
		} else {
			a.mux.Handle(pattern, a.bounded(row.answer))
		}
	}
	return a
}

// The paths of what has a name of its own: see ServeHTTP.
const (
	kvPath     = "/v1/kv/"
	configPath = "/v1/config/"
)

// need returns the scope that a request needs. What is not there needs a token
// as well: a stranger does not learn what is.
func (a *api) need(r *http.Request) Scope {
	if path := r.URL.EscapedPath(); strings.HasPrefix(path, kvPath) || strings.HasPrefix(path, configPath) {
		return ScopeByMethod(r)
	}
	if _, pattern := a.mux.Handler(r); pattern != "" {
		return a.table[pattern].need
	}
	return ScopeRead
}

// ServeHTTP sends keys and names of settings to their handlers before the mux
// sees them: the mux would tidy the path "a//b" into another key.
func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.EscapedPath()
	if key, ok := strings.CutPrefix(path, kvPath); ok {
		a.bounded(a.named("key", key, namedRoutes{get: a.kvGet, put: a.kvPut, del: a.kvDelete})).ServeHTTP(w, r)
		return
	}
	if name, ok := strings.CutPrefix(path, configPath); ok {
		a.bounded(a.named("name", name, namedRoutes{get: a.configGet, put: a.configPut})).ServeHTTP(w, r)
		return
	}
	if _, pattern := a.mux.Handler(r); pattern == "" {
		a.noRoute(w, r)
		return
	}
	a.mux.ServeHTTP(w, r)
}

// namedRoutes are what can be done with one key or setting; nil: not possible.
type namedRoutes struct {
	get, put, del func(w http.ResponseWriter, r *http.Request, name string) error
}

// named returns the route of one key or setting, whose name is the rest of the
// path, still percent-encoded.
func (a *api) named(what, escaped string, routes namedRoutes) route {
	return func(w http.ResponseWriter, r *http.Request) error {
		name, err := url.PathUnescape(escaped)
		if err != nil {
			return badRequest("the %s in the path cannot be read: %v", what, err)
		}
		if name == "" {
			return badRequest("the %s in the path is empty; for a list leave the last / out", what)
		}
		if len(name) > MaxKeyLen {
			return failf(http.StatusRequestEntityTooLarge, CodeTooLarge, "the %s has %d bytes: at most %d", what, len(name), MaxKeyLen)
		}
		allowed := "GET, HEAD, PUT"
		if routes.del != nil {
			allowed += ", DELETE"
		}
		switch {
		case r.Method == http.MethodGet || r.Method == http.MethodHead:
			return routes.get(w, r, name)
		case r.Method == http.MethodPut:
			return routes.put(w, r, name)
		case r.Method == http.MethodDelete && routes.del != nil:
			return routes.del(w, r, name)
		}
		w.Header().Set("Allow", allowed)
		return failf(http.StatusMethodNotAllowed, CodeBadRequest, "%s is not possible on a %s: use %s", r.Method, what, allowed)
	}
}

// noRoute answers what the mux has no handler for, in JSON.
func (a *api) noRoute(w http.ResponseWriter, r *http.Request) {
	probe := &statusProbe{header: make(http.Header)}
	a.mux.ServeHTTP(probe, r)
	if probe.status == http.StatusMethodNotAllowed {
		allow := probe.header.Get("Allow")
		w.Header().Set("Allow", allow)
		a.fail(w, r, failf(http.StatusMethodNotAllowed, CodeBadRequest, "%s is not possible on %s: use %s", r.Method, r.URL.Path, allow))
		return
	}
	a.fail(w, r, failf(http.StatusNotFound, CodeNotFound, "there is nothing at %s", r.URL.Path))
}

// statusProbe learns what the mux would answer, and keeps no body.
type statusProbe struct {
	header http.Header
	status int
}

func (p *statusProbe) Header() http.Header         { return p.header }
func (p *statusProbe) Write(b []byte) (int, error) { return len(b), nil }
func (p *statusProbe) WriteHeader(status int)      { p.status = status }

// route answers a request, or returns the error to answer with; it returns an
// error only when it has written nothing.
type route func(w http.ResponseWriter, r *http.Request) error

// handler turns errors and panics of f into answers.
func (a *api) handler(f route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if p := recover(); p != nil && p != http.ErrAbortHandler { //nolint:errorlint // a panic value, not a wrapped error
				a.log.Error("a request made the API panic", "method", r.Method, "path", r.URL.Path, "panic", p)
				a.fail(w, r, failf(http.StatusInternalServerError, CodeInternal, "the node failed to answer: see its log"))
			}
		}()
		if err := f(w, r); err != nil {
			a.fail(w, r, err)
		}
	})
}

// bounded is handler with a limit on how many run at once.
func (a *api) bounded(f route) http.Handler {
	return a.handler(func(w http.ResponseWriter, r *http.Request) error {
		select {
		case a.inFlight <- struct{}{}:
			defer func() { <-a.inFlight }()
			return f(w, r)
		default:
			return failf(http.StatusServiceUnavailable, CodeBusy, "%d requests are being answered, that is the limit: try again", MaxInFlight)
		}
	})
}
