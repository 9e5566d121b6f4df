package httpapi

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/aiondb/aiondb-ha/internal/leak"
)

func TestAuthority(t *testing.T) {
	a, err := NewAuthority([]byte(cluster))
	if err != nil {
		t.Fatal(err)
	}
	same, err := NewAuthority([]byte(cluster))
	if err != nil || !bytes.Equal(a.PEM(), same.PEM()) {
		t.Errorf("not the same on every node: %v", err)
	}
	other, err := NewAuthority([]byte(cluster + "2"))
	if err != nil || a.cert.PublicKey.(*ecdsa.PublicKey).Equal(other.cert.PublicKey) {
		t.Errorf("two secrets, one key: %v", err)
	}
	block, rest := pem.Decode(a.PEM())
	if block == nil || len(rest) > 0 || leak.Find(a.PEM(), []byte(cluster)) != "" {
		t.Errorf("%s", a.PEM())
	}
	if print := Fingerprint(a.Certificate()); len(print) != 32*3-1 || strings.Count(print, ":") != 31 {
		t.Errorf("fingerprint %s", print)
	}
	now := time.Now()
	leaf, err := a.leaf([]string{"db1.example.com", "10.0.0.1", "::1", ""}, now)
	if err != nil {
		t.Fatal(err)
	}
	for host, good := range map[string]bool{"db1.example.com": true, "10.0.0.1": true, "[::1]": true, "db2.example.com": false, "10.0.0.2": false, "localhost": false} {
		for _, by := range []*Authority{a, other} {
			pool := x509.NewCertPool()
			pool.AddCert(by.Certificate())
			_, err := leaf.Leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: pool, CurrentTime: now})
			if (err == nil) != (good && by == a) {
				t.Errorf("%s: %v", host, err)
			}
		}
	}
	// A leaf signs nothing.
	pool := x509.NewCertPool()
	pool.AddCert(a.Certificate())
	forged, err := (&Authority{leaf.Leaf, leaf.PrivateKey.(*ecdsa.PrivateKey)}).leaf([]string{"x"}, now)
	if err == nil {
		between := x509.NewCertPool()
		between.AddCert(leaf.Leaf)
		if _, err = forged.Leaf.Verify(x509.VerifyOptions{Roots: pool, Intermediates: between, CurrentTime: now}); err == nil {
			t.Error("a node's certificate signed another one")
		}
	}
}

func TestSelfMadeIsRenewed(t *testing.T) {
	a, err := NewAuthority([]byte(cluster))
	if err != nil {
		t.Fatal(err)
	}
	c, err := SelfMade(a, []string{"localhost"}, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	c.now = func() time.Time { return now }
	get := func() *tls.Certificate {
		cert, err := c.Get(nil)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	first := get()
	now = now.Add(leafLifetime*2/3 - time.Hour)
	if get() != first {
		t.Error("renewed too soon")
	}
	now = now.Add(2 * time.Hour)
	if second := get(); second == first || second.Leaf.NotAfter.Before(now.Add(leafLifetime-time.Minute)) || second.Leaf.SerialNumber.Cmp(first.Leaf.SerialNumber) == 0 {
		t.Error("not renewed")
	}
	other, err := NewAuthority([]byte(cluster + "2"))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetAuthority(other); err != nil || get().Leaf.CheckSignatureFrom(other.Certificate()) != nil {
		t.Errorf("another authority did not sign: %v", err)
	}
	if end, fault := c.Status(); !end.Equal(get().Leaf.NotAfter) || fault != "" {
		t.Errorf("expires %s, fault %q", end, fault)
	}
}

// pair writes a certificate that ends at end, and its key.
func pair(t *testing.T, certFile, keyFile, name string, end time.Time) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(7), DNSNames: []string{name}, NotBefore: end.Add(-100 * 24 * time.Hour), NotAfter: end}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	write(t, keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}))
}

func write(t *testing.T, path string, raw []byte) {
	t.Helper()
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Files are read again when they change; as long as they are of no use the old
// certificate goes on, and the log says so once.
func TestFilesAreReloaded(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	now := time.Now()
	pair(t, certFile, keyFile, "one", now.Add(60*24*time.Hour))
	var log strings.Builder
	c, err := FromFiles(certFile, keyFile, hclog.New(&hclog.LoggerOptions{Output: &log}))
	if err != nil {
		t.Fatal(err)
	}
	c.now, c.checked = func() time.Time { return now }, now
	name := func() string {
		t.Helper()
		cert, err := c.Get(nil)
		if err != nil {
			t.Fatal(err)
		}
		return cert.Leaf.DNSNames[0]
	}
	later := func() { now = now.Add(reloadEvery) }
	pair(t, certFile, keyFile, "two", now.Add(60*24*time.Hour))
	if got := name(); got != "one" {
		t.Errorf("looked too soon: %s", got)
	}
	later()
	if got := name(); got != "two" {
		t.Errorf("got %s", got)
	}
	for _, spoil := range []func(){
		func() { write(t, keyFile, nil) },
		func() { write(t, certFile, []byte("garbage")) },
		func() { _ = os.Remove(certFile) },
		func() { pair(t, certFile, keyFile, "past", now.Add(-time.Hour)) },
		func() { pair(t, certFile, filepath.Join(dir, "other.pem"), "another key", now.Add(60*24*time.Hour)) },
	} {
		pair(t, certFile, keyFile, "two", now.Add(60*24*time.Hour))
		later()
		name()
		spoil()
		before := strings.Count(log.String(), "[ERROR]")
		for range 3 {
			later()
			if got := name(); got != "two" {
				t.Errorf("got %s", got)
			}
		}
		name() // too soon to look: the fault is still there
		if end, fault := c.Status(); fault == "" || !strings.Contains(log.String(), fault) || !end.After(now) {
			t.Errorf("status: ends %s, fault %q", end, fault)
		}
		if n := strings.Count(log.String(), "[ERROR]") - before; n != 1 {
			t.Errorf("%d lines about it:\n%s", n, log.String())
		}
	}
	third := now.Add(5 * 24 * time.Hour).Truncate(time.Second)
	pair(t, certFile, keyFile, "three", third)
	later()
	c.Look()
	if end, fault := c.Status(); !end.Equal(third) || fault != "" {
		t.Errorf("status: ends %s, want %s; fault %q", end, third, fault)
	}
	if got := name(); got != "three" || !strings.Contains(log.String(), "expires soon") {
		t.Errorf("got %s\n%s", got, log.String())
	}
	now = now.Add(24 * time.Hour)
	before := strings.Count(log.String(), "expires soon")
	for range 3 {
		later()
		name()
	}
	if n := strings.Count(log.String(), "expires soon") - before; n != 1 {
		t.Errorf("a day later it is said %d times", n)
	}
}

func TestFilesOfNoUse(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	if _, err := FromFiles(certFile, keyFile, hclog.NewNullLogger()); err == nil || !strings.Contains(err.Error(), certFile) {
		t.Errorf("missing: %v", err)
	}
	pair(t, certFile, keyFile, "past", time.Now().Add(-time.Minute))
	if _, err := FromFiles(certFile, keyFile, hclog.NewNullLogger()); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("expired: %v", err)
	}
	if _, err := FromFiles(dir, keyFile, hclog.NewNullLogger()); err == nil {
		t.Error("a directory is no certificate")
	}
}

// TestListenerSpeaksTLS13Only tries the older versions.
func TestListenerSpeaksTLS13Only(t *testing.T) {
	a, err := NewAuthority([]byte(cluster))
	if err != nil {
		t.Fatal(err)
	}
	certs, err := SelfMade(a, []string{"127.0.0.1"}, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := NewServer(open(newFake()), hclog.NewNullLogger())
	go func() { _ = server.Serve(Listener(plain, certs)) }()
	defer server.Close()
	pool := x509.NewCertPool()
	pool.AddCert(a.Certificate())
	for version, good := range map[uint16]bool{tls.VersionTLS12: false, tls.VersionTLS13: true} {
		conn, err := tls.Dial("tcp", plain.Addr().String(), &tls.Config{RootCAs: pool, MinVersion: version, MaxVersion: version, NextProtos: []string{"h2", "http/1.1"}})
		if (err == nil) != good {
			t.Errorf("version %x: %v", version, err)
		}
		if err == nil {
			if p := conn.ConnectionState().NegotiatedProtocol; p != "http/1.1" {
				t.Errorf("protocol %s", p)
			}
			_ = conn.Close()
		}
	}
}
