package httpapi

import (
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// bodyTimeout is how long a request with a body may take to send it. It is
// longer than MaxTimeout because it also ends the waiting for the answer.
const bodyTimeout = MaxTimeout + 30*time.Second

// Guard wraps a handler with what every answer of a node needs on a machine
// that also runs a browser:
//
//   - nothing is cached, sniffed, framed or readable from another site;
//   - a request that changes something and comes from a page of another site is
//     refused (Sec-Fetch-Site, Origin);
//   - on a loopback connection the Host must name this machine, so that a page
//     whose name was pointed at 127.0.0.1 after it was loaded gets nothing.
//
// Programs that are not browsers send none of these headers and pass.
func Guard(next http.Handler) http.Handler {
	crossOrigin := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		if onLoopback(r) && !namesLoopback(r.Host) {
			writeError(w, http.StatusForbidden, errorBody{Code: CodeForbidden,
				Error: "this API listens on loopback and answers only to localhost or 127.0.0.1 in the Host header"})
			return
		}
		if err := crossOrigin.Check(r); err != nil {
			writeError(w, http.StatusForbidden, errorBody{Code: CodeForbidden,
				Error: "a page of another site may not change anything here"})
			return
		}
		if r.Body != nil && r.Body != http.NoBody {
			// Not every ResponseWriter can; then the server's own limit holds.
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
		}
		next.ServeHTTP(w, r)
	})
}

// onLoopback reports whether the request came in on a loopback address.
func onLoopback(r *http.Request) bool {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return false
	}
	addr, err := netip.ParseAddrPort(local.String())
	return err == nil && addr.Addr().Unmap().IsLoopback()
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
