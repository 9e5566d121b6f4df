package transport

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/aiondb/aiondb-ha/protocol"
)

func TestIdentityIsDerived(t *testing.T) {
	a, b, other := identity(t, "one"), identity(t, "one"), identity(t, "two")
	if !bytes.Equal(a.accepted[0].cert.Certificate[0], b.accepted[0].cert.Certificate[0]) {
		t.Error("two nodes with one secret have different certificates")
	}
	if !bytes.Equal(a.accepted[0].message, b.accepted[0].message) || !bytes.Equal(a.GossipKeys()[0], b.GossipKeys()[0]) {
		t.Error("two nodes with one secret have different keys")
	}
	keys := map[string]string{}
	for name, key := range map[string][]byte{
		"message": a.accepted[0].message, "gossip": a.GossipKeys()[0], "knock": a.accepted[0].knock, "tls": a.accepted[0].cert.PrivateKey.(ed25519.PrivateKey).Seed(),
		"other message": other.accepted[0].message, "other gossip": other.GossipKeys()[0], "secret": secret("one")[:32],
	} {
		if len(key) != 32 {
			t.Errorf("the %s key has %d bytes", name, len(key))
		}
		if same, ok := keys[string(key)]; ok {
			t.Errorf("the %s key is the %s key", name, same)
		}
		keys[string(key)] = name
	}
	// What was handed out is a copy.
	a.GossipKeys()[0][0]++
	if !bytes.Equal(a.GossipKeys()[0], b.GossipKeys()[0]) {
		t.Error("a caller could change a key")
	}
}

func TestIdentityRefuses(t *testing.T) {
	short := []byte("a-secret-that-is-much-too-short")
	for name, secrets := range map[string][][]byte{
		"none": nil, "short": {short}, "second short": {secret("one"), short},
	} {
		_, err := NewIdentity(secrets...)
		if err == nil {
			t.Errorf("%s: accepted", name)
			continue
		}
		if name != "none" && !errors.Is(err, protocol.ErrShortSecret) {
			t.Errorf("%s: %v", name, err)
		}
		if strings.Contains(err.Error(), string(short)) {
			t.Errorf("%s: the secret is in the error: %v", name, err)
		}
	}
	if _, err := NewIdentity(make([][]byte, maxSecrets+1)...); err == nil {
		t.Error("too many secrets accepted")
	}
	id, err := NewIdentity(secret("one"), secret("one"))
	if err != nil || len(id.accepted) != 1 {
		t.Errorf("the same secret twice: %v", err)
	}
}

func TestIdentityIsNeverPrinted(t *testing.T) {
	id := identity(t, "one", "two")
	var out strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		fmt.Fprintf(&out, verb+"\n", id)
		fmt.Fprintf(&out, verb+"\n", *id)
		fmt.Fprintf(&out, verb+"\n", struct{ ID *Identity }{id})
	}
	raw, err := json.Marshal(map[string]any{"id": id, "value": *id})
	if err != nil {
		t.Fatal(err)
	}
	out.Write(raw)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "id", id)
	for _, c := range id.accepted {
		seed := c.cert.PrivateKey.(ed25519.PrivateKey).Seed()
		for _, key := range [][]byte{c.gossip, c.message, c.knock, seed} {
			for _, form := range []string{string(key), hex.EncodeToString(key), strings.ToUpper(hex.EncodeToString(key)), strings.Trim(fmt.Sprint(key), "[]")} {
				if strings.Contains(out.String(), form) {
					t.Fatalf("a key is printed:\n%s", out.String())
				}
			}
		}
	}
	if !strings.Contains(out.String(), redacted) {
		t.Error("the test prints nothing")
	}
}
