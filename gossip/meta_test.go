package gossip

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/memberlist"
)

func TestMetaRoundTrip(t *testing.T) {
	for _, m := range []meta{
		{},
		{addr: "127.0.0.1:7600", databaseAddr: "[::1]:5432", apiAddr: "", version: "v0.1.0"},
		{addr: strings.Repeat("a", 500)},
	} {
		raw, err := m.encode()
		if err != nil {
			t.Fatalf("%+v: %v", m, err)
		}
		for _, tail := range []string{"", "a field of a later release"} {
			if len(raw)+len(tail) > memberlist.MetaMaxSize {
				continue
			}
			got, err := decodeMeta(append(bytes.Clone(raw), tail...))
			if err != nil || got != m {
				t.Errorf("%+v came back as %+v, %v", m, got, err)
			}
		}
	}
}

func TestMetaRefused(t *testing.T) {
	for name, raw := range map[string][]byte{
		"empty":         {},
		"other version": {2, 0, 0, 0, 0, 0, 0, 0, 0},
		"no fields":     {1},
		"half a length": {1, 0, 0, 0, 0, 0, 0, 0},
		"cut field":     {1, 5, 0, 'a'},
		"not UTF-8":     {1, 1, 0, 0xff, 0, 0, 0, 0, 0, 0},
		"too long":      append([]byte{1}, make([]byte, memberlist.MetaMaxSize)...),
	} {
		if m, err := decodeMeta(raw); !errors.Is(err, errMeta) || m != (meta{}) {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
	for name, m := range map[string]meta{
		"long field":  {addr: strings.Repeat("a", 513)},
		"long in all": {addr: strings.Repeat("a", 300), databaseAddr: strings.Repeat("b", 300)},
		"not UTF-8":   {apiAddr: "\xff"},
	} {
		if raw, err := m.encode(); err == nil {
			t.Errorf("%s: encoded to %d bytes", name, len(raw))
		}
	}
}

func FuzzDecodeMeta(f *testing.F) {
	raw, _ := meta{addr: "10.0.0.1:7600", databaseAddr: "10.0.0.1:5432", apiAddr: "127.0.0.1:80", version: "v1"}.encode()
	f.Add(raw)
	f.Add([]byte{1})
	f.Add([]byte{1, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := decodeMeta(raw)
		if err != nil {
			if !errors.Is(err, errMeta) || m != (meta{}) {
				t.Fatalf("%+v, %v", m, err)
			}
			return
		}
		again, err := m.encode()
		if err != nil || !bytes.HasPrefix(raw, again) {
			t.Fatalf("%x decodes to %+v, which encodes to %x, %v", raw, m, again, err)
		}
	})
}

func TestBridge(t *testing.T) {
	var out bytes.Buffer
	ended := make(chan struct{})
	b := &bridge{logger: hclog.New(&hclog.LoggerOptions{Output: &out, Level: hclog.Info, DisableTime: true}), ended: ended}
	for _, line := range []string{
		"[DEBUG] memberlist: Stream connection from=10.0.0.1:4",
		"[INFO] memberlist: Suspect 3 has failed, no acks received",
		"[WARN] memberlist: Refuting a suspect message (from: 2)",
		"[ERR] memberlist: Decrypt packet failed: no installed keys could decrypt the message from=10.0.0.1:5",
		"[ERR] memberlist: Decrypt packet failed: no installed keys could decrypt the message from=10.0.0.2:6",
		"no level at all",
	} {
		if _, err := b.Write([]byte(line + "\n")); err != nil {
			t.Fatal(err)
		}
	}
	close(ended)
	if _, err := b.Write([]byte("[ERR] memberlist: Failed to send UDP ping\n")); err != nil {
		t.Fatal(err)
	}
	want := "[INFO]  Refuting a suspect message (from: 2)\n" +
		"[WARN]  Decrypt packet failed: no installed keys could decrypt the message from=10.0.0.1:5\n"
	if out.String() != want {
		t.Errorf("logged:\n%swant:\n%s", out.String(), want)
	}
}
