package httpapi

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
)

// The dashboard is one page that asks for nothing but this API: no other file,
// no other host, so that it works on a machine without a way out.
var (
	//go:embed dashboard/page.html
	pageHTML string
	//go:embed dashboard/style.css
	pageCSS string
	//go:embed dashboard/script.js
	pageJS string
)

// page is the assembled document and the policy it is served with.
type page struct {
	html   string
	policy string
}

// newPage puts style and script into the page. The policy names both by their
// hash, so that the browser runs this script and no other, whatever a key or an
// address on the page may contain.
func newPage() page {
	html := strings.NewReplacer("/*STYLE*/", pageCSS, "/*SCRIPT*/", pageJS).Replace(pageHTML)
	return page{
		html: html,
		policy: strings.Join([]string{
			"default-src 'none'",
			"script-src " + hashSource(pageJS),
			"style-src " + hashSource(pageCSS),
			"img-src data:",
			"connect-src 'self'",
			"base-uri 'none'",
			"form-action 'none'",
			"frame-ancestors 'none'",
		}, "; "),
	}
}

func hashSource(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

func (a *api) dashboard(w http.ResponseWriter, _ *http.Request) error {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", a.page.policy)
	h.Set("Content-Length", strconv.Itoa(len(a.page.html)))
	_, _ = w.Write([]byte(a.page.html))
	return nil
}
