package httpapi

import (
	"context"
	"net/http"
)

// Scope is what a route asks for, and what a token gives. A larger one includes
// the smaller ones.
type Scope uint8

// The scopes. A route for which none is said needs the largest.
const (
	unscoped    Scope = iota
	ScopePublic       // no token: what a load balancer and a login need
	ScopeRead         // everything that changes nothing
	ScopeAdmin        // everything
)

// String returns the scope's name in answers.
func (s Scope) String() string {
	switch s {
	case ScopeRead:
		return "read"
	case ScopeAdmin:
		return "admin"
	}
	return "none"
}

// allows reports whether a caller of scope s may use a route that needs need.
func (s Scope) allows(need Scope) bool {
	if need == unscoped {
		need = ScopeAdmin
	}
	return s >= need
}

// ScopeByMethod is for handlers in which GET and HEAD change nothing and
// everything else does.
func ScopeByMethod(r *http.Request) Scope {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return ScopeRead
	}
	return ScopeAdmin
}

type callerKey struct{}

// caller returns what Guard has found the request's sender to be.
func caller(r *http.Request) Scope {
	s, _ := r.Context().Value(callerKey{}).(Scope)
	return s
}

func withCaller(r *http.Request, s Scope) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), callerKey{}, s))
}
