package httpapi

import (
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/aiondb/aiondb-ha/internal/quiet"
)

// bodyTimeout is how long a request may take to send its body.
const bodyTimeout = 15 * time.Second

// Guard stands before every handler of a node's API.
type Guard struct {
	access      *Access
	log         hclog.Logger
	refusals    *quiet.Quiet
	crossOrigin *http.CrossOriginProtection
}

// NewGuard returns a guard that lets in whom access lets in.
func NewGuard(access *Access, logger hclog.Logger) *Guard {
	if logger == nil {
		logger = hclog.NewNullLogger()
	}
	return &Guard{access: access, log: logger, refusals: quiet.New(time.Now), crossOrigin: http.NewCrossOriginProtection()}
}

// Wrap puts the guard before a handler whose requests need the scope that need
// says:
//
//   - nothing is cached, sniffed, framed or readable from another site;
//   - on a loopback connection the Host must name this machine, so that a page
//     whose name was pointed at 127.0.0.1 after it was loaded gets nothing;
//   - beyond loopback there must be TLS, and tokens must be required;
//   - a request that changes something and comes from a page of another site is
//     refused (Sec-Fetch-Site, Origin), and one with a cookie must say that it
//     comes from a page of ours;
//   - where tokens are required the request must bring one of that scope, in
//     "Authorization: Bearer" or as a session;
//   - a body must be sent within bodyTimeout.
func (g *Guard) Wrap(need func(*http.Request) Scope, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		control := http.NewResponseController(w)
		if r.Body != nil && r.Body != http.NoBody {
			// Not every ResponseWriter can; then the server's own limit holds.
			if control.SetReadDeadline(time.Now().Add(bodyTimeout)) == nil {
				r.Body = &timedBody{r.Body, control}
			}
		}
		granted, refusal := g.admit(r, need(r))
		if refusal != nil {
			if refusal.status == http.StatusUnauthorized {
				h.Set("WWW-Authenticate", `Bearer realm="aiondb-ha"`)
			}
			writeError(w, refusal.status, refusal.body)
			return
		}
		next.ServeHTTP(w, withCaller(r, granted))
	})
}

// admit returns what the sender of r may do, or the answer that it may not.
func (g *Guard) admit(r *http.Request, need Scope) (Scope, *apiError) {
	where := arrival(r)
	if where == onLoopback && !namesLoopback(r.Host) {
		return unscoped, newError(http.StatusForbidden, CodeForbidden,
			"this API listens on loopback and answers only to localhost or 127.0.0.1 in the Host header")
	}
	required := g.access.Required()
	switch {
	case where != fromAfar:
	case !required:
		return unscoped, newError(http.StatusForbidden, CodeForbidden,
			"this API asks for no token and so answers on loopback only: give the node an API token")
	case r.TLS == nil:
		return unscoped, newError(http.StatusForbidden, CodeForbidden, "beyond loopback this API speaks TLS only")
	}
	if g.crossOrigin.Check(r) != nil {
		return unscoped, newError(http.StatusForbidden, CodeForbidden, "a page of another site may not change anything here")
	}
	if !required {
		return ScopeAdmin, nil
	}
	who := g.access.identify(r)
	if who.given && !who.cookie && who.scope == unscoped {
		// Also where none is needed: whoever sends one wants to know that it is wrong.
		g.report(r, "a request with a token that is not accepted was refused")
		return unscoped, newError(http.StatusUnauthorized, CodeUnauthorized, "this token is not accepted here")
	}
	granted := max(who.scope, ScopePublic)
	switch {
	case !granted.allows(need) && who.scope == unscoped:
		g.report(r, "a request without a token was refused")
		return unscoped, newError(http.StatusUnauthorized, CodeUnauthorized,
			"this API wants a token: send it as Authorization: Bearer TOKEN")
	case !granted.allows(need):
		return unscoped, newError(http.StatusForbidden, CodeReadOnly, "this token may read and change nothing: %s here wants an admin token", r.Method)
	case who.cookie && need == ScopeAdmin && r.Header.Get("Sec-Fetch-Site") == "" && r.Header.Get("Origin") == "":
		return unscoped, newError(http.StatusForbidden, CodeForbidden, "a session is for the dashboard: programs send Authorization: Bearer TOKEN")
	}
	return granted, nil
}

// report says once per source and minute that somebody is kept out.
func (g *Guard) report(r *http.Request, what string) {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	if g.refusals.Say(host) {
		g.log.Warn(what+"; further ones from there go unmentioned for a minute", "from", host, "method", r.Method, "path", r.URL.Path)
	}
}

// The ways a request can have come in.
type way uint8

const (
	unknownWay way = iota // not by net/http's server, or by a socket file: whoever serves it decides who can
	onLoopback
	fromAfar
)

// arrival reports on what kind of local address the request came in.
func arrival(r *http.Request) way {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return unknownWay
	}
	addr, err := netip.ParseAddrPort(local.String())
	switch {
	case err != nil && strings.HasPrefix(local.Network(), "unix"):
		return unknownWay
	case err == nil && addr.Addr().Unmap().IsLoopback():
		return onLoopback
	}
	return fromAfar
}

// namesLoopback reports whether a Host header can only mean this machine. An
// absent one does: browsers always send it.
func namesLoopback(host string) bool {
	if host == "" {
		return true
	}
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.TrimSuffix(strings.ToLower(strings.Trim(name, "[]")), ".")
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(name)
	return err == nil && ip.Unmap().IsLoopback()
}

// timedBody takes the deadline off the connection once the body is there: it
// would end the waiting for the answer too.
type timedBody struct {
	io.ReadCloser
	control *http.ResponseController
}

func (b *timedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		_ = b.control.SetReadDeadline(time.Time{})
	}
	return n, err
}
