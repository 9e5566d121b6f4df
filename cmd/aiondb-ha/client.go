package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/aiondb/aiondb-ha/internal/httpapi"
	"github.com/aiondb/aiondb-ha/internal/term"
	"github.com/aiondb/aiondb-ha/protocol"
)

const (
	apiEnv     = "AIONDB_HA_API_ADDR"
	defaultAPI = "http://127.0.0.1:7700"
	// maxAnswer bounds an answer that is read, in bytes.
	maxAnswer = 64 << 20
	// answerGrace is how much longer than the node's own deadline we wait.
	answerGrace = 2 * time.Second
)

// client asks one node's API.
type client struct {
	base    *url.URL
	token   protocol.Secret // sent with each request, if not empty
	timeout time.Duration   // given to the node as the request's deadline
	http    *http.Client
}

// client returns a client for the node that the command line or the environment
// names.
func (a *app) client(in *input) (*client, error) {
	return a.clientWith(in, in.timeout.or(httpapi.DefaultTimeout))
}

func (a *app) clientWith(in *input, timeout time.Duration) (*client, error) {
	text, from := in.api, "--api"
	if text == "" {
		text, from = a.getenv(apiEnv), apiEnv
	}
	if text == "" {
		text = defaultAPI
	}
	base, err := a.apiURL(text)
	if err != nil {
		return nil, misused("%s: %q is no URL: want http://HOST:PORT or https://HOST:PORT", from, term.Safe(text))
	}
	token, err := a.bearer(in, base)
	if err != nil {
		return nil, err
	}
	trust, err := a.trust(in)
	if err != nil {
		return nil, err
	}
	return &client{base: base, token: token, timeout: timeout, http: &http.Client{
		Transport: &http.Transport{
			Proxy:           nil, // one set for the outside world has no business here
			DialContext:     (&net.Dialer{Timeout: 3 * time.Second}).DialContext,
			TLSClientConfig: trust,
		},
		// A node redirects nobody, and a token goes where it was meant to.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// apiURL reads a URL, or an address to listen on, as AIONDB_HA_API_ADDR is.
func (a *app) apiURL(text string) (*url.URL, error) {
	if !strings.Contains(text, "://") {
		text = a.schemeFor(text) + "://" + text
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, err
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("not the URL of an API")
	}
	host, port := u.Hostname(), u.Port()
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		if host = "127.0.0.1"; ip.Is6() {
			host = "::1"
		}
		u.Host = net.JoinHostPort(host, port)
	}
	u.Path = strings.TrimRight(u.Path, "/")
	return u, nil
}

// apiError is an answer of the API that is an error.
type apiError struct {
	Status  int             `json:"-"`
	Message string          `json:"error"`
	Code    string          `json:"code"`
	Leader  protocol.NodeID `json:"leader"`
	Primary protocol.NodeID `json:"primary"`
}

// Error gives the node's reason and, where there is one, the next step.
func (e *apiError) Error() string {
	text := term.Safe(e.Message)
	switch e.Code {
	case httpapi.CodeNoQuorum:
		return text + ": start the nodes that are down (aiondb-ha nodes); reads still answer with --stale"
	case httpapi.CodeUnknownOutcome:
		return text + ": read it back before you try again"
	case httpapi.CodeNotLeader:
		return text + ": an election may be on, try again"
	case httpapi.CodeTimeout:
		return text + ": try --timeout, or --stale where reads have it"
	case httpapi.CodeRevision:
		return text + "; read it again before you decide"
	case httpapi.CodeUnauthorized:
		return text + ": give --api-token-file FILE, or set " + apiTokenEnv + fileSuffix
	}
	return text
}

// request sends a request and returns the answer's body, still open, when it is
// a success.
func (c *client) request(ctx context.Context, method, path string, query url.Values, body []byte, header http.Header) (*http.Response, error) {
	u := *c.base
	u.RawQuery = query.Encode()
	address := u.String()
	if i := strings.IndexByte(address, '?'); i >= 0 {
		address = address[:i] + path + address[i:]
	} else {
		address += path
	}
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	for name, values := range header {
		req.Header[name] = values
	}
	if c.token.Len() > 0 {
		req.Header.Set("Authorization", "Bearer "+string(c.token.Bytes()))
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	answer := &apiError{Status: resp.StatusCode}
	if resp.StatusCode == http.StatusBadRequest && bytes.Contains(raw, []byte("HTTPS server")) {
		return nil, fmt.Errorf("the API at %s speaks TLS: use https://%s", c.base, c.base.Host)
	}
	if err != nil || json.Unmarshal(raw, answer) != nil || answer.Message == "" {
		return nil, fmt.Errorf("what answers at %s is no aiondb-ha node (HTTP status %d): see --api", c.base, resp.StatusCode)
	}
	return nil, answer
}

// call sends a request and returns the whole answer.
func (c *client) call(ctx context.Context, method, path string, query url.Values, body []byte) ([]byte, error) {
	if query == nil {
		query = url.Values{}
	}
	query.Set("timeout", c.timeout.String())
	ctx, cancel := context.WithTimeout(ctx, c.timeout+answerGrace)
	defer cancel()
	resp, err := c.request(ctx, method, path, query, body, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	return raw, nil
}

// get asks for a document and decodes it into target as well.
func (c *client) get(ctx context.Context, path string, query url.Values, target any) ([]byte, error) {
	raw, err := c.call(ctx, http.MethodGet, path, query, nil)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(raw, target); err != nil {
		return nil, fmt.Errorf("what answers at %s is no aiondb-ha node (%w): see --api", c.base, err)
	}
	return raw, nil
}

// post sends a JSON document.
func (c *client) post(ctx context.Context, path string, document any) ([]byte, error) {
	body, err := json.Marshal(document)
	if err != nil {
		return nil, err
	}
	return c.call(ctx, http.MethodPost, path, nil, body)
}

// unreachable says why there is no answer and what to do.
func (c *client) unreachable(ctx context.Context, err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	if why := untrusted(c.base, err); why != nil {
		return why
	}
	var plain tls.RecordHeaderError
	switch {
	case errors.As(err, &plain):
		return fmt.Errorf("what listens at %s does not speak TLS: use http:// on the node's own machine", c.base)
	case errors.Is(ctx.Err(), context.Canceled):
		return errors.New("interrupted")
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no answer from %s within %s: the node may be stopped, ask another with --api", c.base, c.timeout+answerGrace)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("nothing listens at %s: start a node with aiondb-ha serve, or name another with --api URL", c.base)
	}
	return fmt.Errorf("cannot reach %s (%w): start a node with aiondb-ha serve, or name another with --api URL", c.base, err)
}

// pathEscape writes a key for a URL's path, every byte that could be taken for
// something else encoded, slashes and dots included: no client or proxy on the
// way may tidy a key into another.
func pathEscape(key string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(key) {
		c := key[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '~' {
			b.WriteByte(c)
		} else {
			b.WriteString("%" + string(hex[c>>4]) + string(hex[c&15]))
		}
	}
	return b.String()
}
