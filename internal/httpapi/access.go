package httpapi

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aiondb/aiondb-ha/protocol"
)

const (
	// MinTokenLen and MaxTokenLen bound a token, in bytes.
	MinTokenLen = protocol.MinSecretLen
	MaxTokenLen = 512
	// MaxTokens bounds how many tokens are accepted of each scope: one in use,
	// and a few during a rotation.
	MaxTokens = 4
	// SessionLifetime is how long a browser stays logged in.
	SessionLifetime = 12 * time.Hour
)

// What the tokens of a cluster are derived for; see the labels of the transport.
const (
	derivationSalt   = "aiondb-ha/1"
	labelAdminToken  = "api token admin"
	labelReadToken   = "api token read"
	labelSession     = "api session"
	derivedTokenSize = 32 // bytes
)

// The names of the session cookie. A browser takes the first one only over TLS,
// only for this host, and from nobody else.
const (
	secureCookie = "__Host-aiondb-ha"
	plainCookie  = "aiondb-ha"
)

// Tokens are what an operator lets into the API, besides what is derived from
// the cluster secret.
type Tokens struct {
	Admin []protocol.Secret // may do everything; MaxTokens at most
	Read  []protocol.Secret // may change nothing; MaxTokens at most
	// Required asks for a token on loopback too. With any Admin or Read token
	// that is so anyway.
	Required bool
}

// Equal reports whether t and o let in the same.
func (t Tokens) Equal(o Tokens) bool {
	return t.Required == o.Required && slices.EqualFunc(t.Admin, o.Admin, protocol.Secret.Equal) && slices.EqualFunc(t.Read, o.Read, protocol.Secret.Equal)
}

// Validate reports what is wrong with the tokens, secrets being those of the
// cluster, which must not be given to clients. No token appears in the error.
func (t Tokens) Validate(secrets ...[]byte) error {
	var faults []error
	seen := make(map[string]bool)
	for _, secret := range secrets {
		seen[string(secret)] = true
	}
	for _, list := range []struct {
		name   string
		tokens []protocol.Secret
	}{{"admin", t.Admin}, {"read", t.Read}} {
		if len(list.tokens) > MaxTokens {
			faults = append(faults, fmt.Errorf("%d %s tokens: at most %d", len(list.tokens), list.name, MaxTokens))
		}
		for i, s := range list.tokens {
			text := string(s.Bytes())
			switch {
			case !sendable(text):
				faults = append(faults, fmt.Errorf("%s token %d: want %d to %d letters, digits or -._~+/= without blanks: make one with `aiondb-ha token`", list.name, i+1, MinTokenLen, MaxTokenLen))
			case seen[text]:
				faults = append(faults, fmt.Errorf("%s token %d is also the cluster secret or a token of another kind: make one of its own with `aiondb-ha token`", list.name, i+1))
			}
			seen[text] = true
		}
	}
	return errors.Join(faults...)
}

// sendable reports whether text can be sent as a bearer token, and is long
// enough to be one.
func sendable(text string) bool {
	for i := range len(text) {
		c := text[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~+/=", c) >= 0) {
			return false
		}
	}
	return len(text) >= MinTokenLen && len(text) <= MaxTokenLen
}

// DeriveTokens returns the tokens that whoever holds a cluster secret can make
// for the API. The secret cannot be computed from them.
func DeriveTokens(secret []byte) (admin, read protocol.Secret) {
	derive := func(label string) protocol.Secret {
		raw, err := hkdf.Key(sha256.New, secret, []byte(derivationSalt), label, derivedTokenSize)
		if err != nil { // the length is a constant that HKDF can give
			panic(err)
		}
		return protocol.NewSecret(base64.RawURLEncoding.EncodeToString(raw))
	}
	return derive(labelAdminToken), derive(labelReadToken)
}

// Access decides who may do what over the API. It keeps no token, only what
// tells one, and is safe for concurrent use.
type Access struct {
	now func() time.Time

	mu        sync.Mutex
	explicit  []credential
	derived   []credential
	mandatory bool // a token is needed on loopback too
}

// credential recognises one token and the sessions begun with it.
type credential struct {
	scope   Scope
	digest  [sha256.Size]byte
	session []byte // HMAC key
}

func newCredential(scope Scope, token []byte) credential {
	mac := hmac.New(sha256.New, token)
	mac.Write([]byte(labelSession))
	return credential{scope: scope, digest: sha256.Sum256(token), session: mac.Sum(nil)}
}

// NewAccess returns an Access that lets in whoever shows a token derived from
// one of the secrets, or one of tokens, which must be valid.
func NewAccess(secrets [][]byte, tokens Tokens) *Access {
	a := &Access{now: time.Now}
	a.SetSecrets(secrets)
	a.SetTokens(tokens)
	return a
}

// SetTokens replaces the tokens: from its return on the others are refused, and
// so are the sessions begun with them.
func (a *Access) SetTokens(tokens Tokens) {
	var list []credential
	for _, t := range tokens.Admin {
		list = append(list, newCredential(ScopeAdmin, t.Bytes()))
	}
	for _, t := range tokens.Read {
		list = append(list, newCredential(ScopeRead, t.Bytes()))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.explicit = list
	a.mandatory = tokens.Required || len(list) > 0
}

// SetSecrets replaces the cluster secrets whose derived tokens are accepted.
func (a *Access) SetSecrets(secrets [][]byte) {
	var list []credential
	for _, secret := range secrets {
		admin, read := DeriveTokens(secret)
		list = append(list, newCredential(ScopeAdmin, admin.Bytes()), newCredential(ScopeRead, read.Bytes()))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.derived = list
}

// Required reports whether requests need a token even on loopback. Without it
// nothing but loopback is answered.
func (a *Access) Required() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mandatory
}

// credentials returns what is accepted now; it is not to be changed.
func (a *Access) credentials() (explicit, derived []credential) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.explicit, a.derived
}

// find calls match with every credential there is, whatever it says, and
// returns the last that matched: how long it takes tells nothing.
func (a *Access) find(match func(*credential) bool) *credential {
	var found *credential
	explicit, derived := a.credentials()
	for _, list := range [][]credential{explicit, derived} {
		for i := range list {
			if match(&list[i]) {
				found = &list[i]
			}
		}
	}
	return found
}

// token returns the credential of a token, nil if it is not accepted. The
// comparison takes the same time wherever the first difference is.
func (a *Access) token(text string) *credential {
	digest := sha256.Sum256([]byte(text))
	return a.find(func(c *credential) bool { return subtle.ConstantTimeCompare(c.digest[:], digest[:]) == 1 })
}

// proof is how a request says who sends it.
type proof struct {
	scope  Scope // unscoped: it says nothing, or nothing that counts
	cookie bool
	given  bool // it says something
}

// identify reads the bearer token of r, or else its session.
func (a *Access) identify(r *http.Request) proof {
	if header := r.Header.Get("Authorization"); header != "" {
		scheme, text, _ := strings.Cut(header, " ")
		p := proof{given: true}
		if strings.EqualFold(scheme, "Bearer") {
			if c := a.token(strings.TrimSpace(text)); c != nil {
				p.scope = c.scope
			}
		}
		return p
	}
	cookie, err := r.Cookie(cookieName(r))
	if err != nil || cookie.Value == "" {
		return proof{}
	}
	return proof{scope: a.session(cookie.Value), cookie: true, given: true}
}

func cookieName(r *http.Request) string {
	if r.TLS != nil {
		return secureCookie
	}
	return plainCookie
}

// newSession returns the value of a cookie that stands for c until it expires.
// Any node with the same token accepts it, and none without.
func (a *Access) newSession(c *credential) (value string, expires time.Time) {
	expires = a.now().Add(SessionLifetime).Truncate(time.Second)
	text := strconv.FormatInt(expires.Unix(), 10)
	return text + "." + base64.RawURLEncoding.EncodeToString(c.sign(text)), expires
}

func (c *credential) sign(text string) []byte {
	mac := hmac.New(sha256.New, c.session)
	mac.Write([]byte(text))
	return mac.Sum(nil)
}

// session returns the scope of a session cookie, unscoped if it does not count.
func (a *Access) session(value string) Scope {
	text, encoded, ok := strings.Cut(value, ".")
	if !ok {
		return unscoped
	}
	given, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return unscoped
	}
	c := a.find(func(c *credential) bool { return hmac.Equal(c.sign(text), given) })
	if c == nil {
		return unscoped
	}
	until, err := strconv.ParseInt(text, 10, 64) // we wrote it ourselves
	if err != nil || !a.now().Before(time.Unix(until, 0)) {
		return unscoped
	}
	return c.scope
}
