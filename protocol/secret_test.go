package protocol

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/aiondb/aiondb-ha/internal/leak"
)

type xmlConfig struct{ S Secret }

// A secret is not to be had by printing it, in any way somebody may come to do
// so without thinking of it.
func TestSecretNeverShows(t *testing.T) {
	const text = "correct-horse-battery-staple-0123"
	s := NewSecret(text)
	var log bytes.Buffer
	hclog.New(&hclog.LoggerOptions{Output: &log, Level: hclog.Trace}).Info("started", "secret", s, "all", struct{ S Secret }{s})
	hclog.New(&hclog.LoggerOptions{Output: &log, JSONFormat: true}).Info("started", "secret", s)
	slog.New(slog.NewTextHandler(&log, nil)).Info("started", "secret", s)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("started", "secret", s, "all", struct{ S Secret }{s})
	config := struct {
		Secret Secret
		Old    []Secret
		By     map[string]Secret
		At     *Secret
		own    Secret // package fmt asks it for nothing
	}{s, []Secret{s}, map[string]Secret{"a": s}, &s, s}
	asJSON, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	asXML, err := xml.Marshal(xmlConfig{s})
	if err != nil {
		t.Fatal(err)
	}
	shown := []string{log.String(), string(asJSON), string(asXML), fmt.Errorf("bad: %w %s", fmt.Errorf("%v", s), s).Error()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%c", "%U", "%T %v", "%08.3v", "% x", "%!"} {
		shown = append(shown, fmt.Sprintf(verb, s), fmt.Sprintf(verb, config), fmt.Sprintf(verb, &config))
	}
	for _, out := range shown {
		if found := leak.Find([]byte(out), []byte(text)); found != "" {
			t.Errorf("the secret shows, %s", found)
		}
	}
	if !strings.Contains(log.String(), redactedSecret) {
		t.Errorf("the log says nothing: %s", &log)
	}
}

func TestSecretEqual(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{{"", "", true}, {"a", "a", true}, {"a", "b", false}, {"a", "aa", false}, {"a", "", false}} {
		if got := NewSecret(c.a).Equal(NewSecret([]byte(c.b))); got != c.want {
			t.Errorf("%q, %q: %v", c.a, c.b, got)
		}
		if s := NewSecret(c.a); string(s.Bytes()) != c.a || s.Len() != len(c.a) {
			t.Errorf("%q: %d bytes, %q", c.a, s.Len(), s.Bytes())
		}
	}
}
