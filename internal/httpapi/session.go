package httpapi

import (
	"net/http"
	"time"
)

// sessionBody is what a page wants to know of its visitor.
type sessionBody struct {
	Required bool   `json:"required"` // a token is asked for
	Scope    string `json:"scope"`    // none, read or admin
}

// sessionGet says what the caller may do.
func (a *api) sessionGet(w http.ResponseWriter, r *http.Request) error {
	return writeJSON(w, http.StatusOK, sessionBody{Required: a.guard.access.Required(), Scope: caller(r).String()})
}

// sessionBegin exchanges a token for a cookie, so that the page need not keep
// the token, and no script can read it.
func (a *api) sessionBegin(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		Token string `json:"token"`
	}
	if readJSON(w, r, &body) != nil || body.Token == "" {
		// The reason would repeat a part of the body, which is most likely a token.
		return badRequest(`want {"token": "..."}`)
	}
	c := a.guard.access.token(body.Token)
	if c == nil {
		a.guard.report(r, "a login with a token that is not accepted was refused")
		return failf(http.StatusUnauthorized, CodeUnauthorized, "this token is not accepted here")
	}
	value, expires := a.guard.access.newSession(c)
	setCookie(w, r, value, expires)
	return writeJSON(w, http.StatusOK, sessionBody{Required: a.guard.access.Required(), Scope: c.scope.String()})
}

// sessionEnd makes the browser forget its cookie.
func (a *api) sessionEnd(w http.ResponseWriter, r *http.Request) error {
	setCookie(w, r, "", time.Unix(1, 0))
	return writeJSON(w, http.StatusOK, sessionBody{Required: a.guard.access.Required(), Scope: ScopePublic.String()})
}

func setCookie(w http.ResponseWriter, r *http.Request, value string, expires time.Time) {
	http.SetCookie(w, &http.Cookie{ //nolint:gosec // G124: Secure wherever there is TLS, and without TLS there is only loopback
		Name: cookieName(r), Value: value, Path: "/", Expires: expires,
		Secure:   r.TLS != nil, // beyond loopback there is nothing but TLS
		HttpOnly: true, SameSite: http.SameSiteStrictMode,
	})
}
