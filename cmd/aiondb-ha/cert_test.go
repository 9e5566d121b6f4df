package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// The certificates that cert makes are replaced only when that is asked for.
func TestCert(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	call := func(want int, args ...string) string {
		t.Helper()
		var out bytes.Buffer
		a := &app{ctx: t.Context(), stdin: bytes.NewReader(nil), stdout: &out, stderr: &out}
		if code := a.run(args); code != want {
			t.Errorf("%v: status %d, want %d: %s", args, code, want, out.String())
		}
		return out.String()
	}
	read := func(name string) string {
		t.Helper()
		raw, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	call(1, "cert", "node", "2", dir)
	call(2, "cert", "ca", dir, "--days", "0")
	call(0, "cert", "ca", dir)
	ca := read("ca-key.pem")
	call(1, "cert", "ca", dir)
	call(2, "cert", "node", "0", dir)
	call(0, "cert", "node", "2", dir)
	first := read("node-2.pem")
	call(1, "cert", "node", "2", dir)
	if read("node-2.pem") != first || read("ca-key.pem") != ca {
		t.Error("replaced without having been asked to")
	}
	call(0, "cert", "node", "2", dir, "--replace")
	if read("node-2.pem") == first {
		t.Error("not replaced")
	}
	for name, mode := range map[string]os.FileMode{"ca-key.pem": 0o600, "node-2-key.pem": 0o600} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 4 {
		t.Errorf("%v, %v", entries, err)
	}
}
