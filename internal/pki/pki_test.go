package pki

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/url"
	"strings"
	"testing"
	"time"
)

var node2 = &url.URL{Scheme: "aiondb-ha", Host: "node", Path: "/2"}

func newCA(t *testing.T, valid time.Duration) Pair {
	t.Helper()
	ca, err := NewCA("a test", valid)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func leaf(t *testing.T, p Pair) *x509.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair(p.Cert, p.Key)
	if err != nil {
		t.Fatalf("certificate and key do not go together: %v", err)
	}
	return pair.Leaf
}

func pool(p Pair) *x509.CertPool {
	out := x509.NewCertPool()
	out.AppendCertsFromPEM(p.Cert)
	return out
}

// A node's certificate is good for both ends of a connection, names the node, and is
// nobody's but its CA's.
func TestNewNode(t *testing.T) {
	ca, other := newCA(t, time.Hour), newCA(t, time.Hour)
	pair, err := NewNode(ca, 2, node2, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	cert := leaf(t, pair)
	for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if _, err := cert.Verify(x509.VerifyOptions{Roots: pool(ca), KeyUsages: []x509.ExtKeyUsage{use}}); err != nil {
			t.Errorf("use %v: %v", use, err)
		}
		if _, err := cert.Verify(x509.VerifyOptions{Roots: pool(other), KeyUsages: []x509.ExtKeyUsage{use}}); err == nil {
			t.Errorf("use %v: another CA of the same name stands for it", use)
		}
	}
	if len(cert.URIs) != 1 || cert.URIs[0].String() != node2.String() || cert.IsCA {
		t.Errorf("it names %v, CA %v", cert.URIs, cert.IsCA)
	}
	again, err := NewNode(ca, 2, node2, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if second := leaf(t, again); second.SerialNumber.Cmp(cert.SerialNumber) == 0 || bytes.Equal(again.Key, pair.Key) {
		t.Error("two certificates share their number or key")
	}
}

// What a node's key signs is no certificate: the chain is one link long.
func TestNodeIsNoCA(t *testing.T) {
	ca := newCA(t, time.Hour)
	node, err := NewNode(ca, 2, node2, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewNode(node, 3, node2, time.Minute); err == nil || !strings.Contains(err.Error(), "not a CA's") {
		t.Errorf("signed with a node's certificate: %v", err)
	}
}

// A node's certificate does not outlive its CA, and begins a little before now.
func TestValidity(t *testing.T) {
	ca := newCA(t, time.Hour)
	for _, test := range []struct{ asked, want time.Duration }{{time.Minute, time.Minute}, {time.Hour, time.Hour}, {24 * time.Hour, time.Hour}} {
		now := time.Now()
		pair, err := NewNode(ca, 2, node2, test.asked)
		if err != nil {
			t.Fatal(err)
		}
		cert := leaf(t, pair)
		if left := cert.NotAfter.Sub(now); left > test.want+2*time.Second || left < test.want-time.Minute {
			t.Errorf("asked for %v: it is good for %v", test.asked, left)
		}
		if cert.NotAfter.After(leaf(t, ca).NotAfter) {
			t.Errorf("asked for %v: it outlives the CA", test.asked)
		}
		if early := now.Sub(cert.NotBefore); early < backdated-2*time.Second {
			t.Errorf("it begins %v before now, want %v", early, backdated)
		}
	}
	if _, err := NewNode(newCA(t, -time.Minute), 2, node2, time.Hour); err == nil || !strings.Contains(err.Error(), "the CA ended on") {
		t.Errorf("from a CA that is over: %v", err)
	}
}

// Files that are no CA are told apart.
func TestBadCA(t *testing.T) {
	ca, other := newCA(t, time.Hour), newCA(t, time.Hour)
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(edKey)
	if err != nil {
		t.Fatal(err)
	}
	garbage := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("none")})
	for _, test := range []struct {
		want string
		ca   Pair
	}{
		{"not PEM", Pair{Cert: []byte("none"), Key: ca.Key}},
		{"not PEM", Pair{Cert: ca.Cert}},
		{"the CA's certificate: ", Pair{Cert: garbage, Key: ca.Key}},
		{"the CA's key: ", Pair{Cert: ca.Cert, Key: garbage}},
		{"want an ECDSA key", Pair{Cert: ca.Cert, Key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})}},
		{"doesn't match", Pair{Cert: ca.Cert, Key: other.Key}},
	} {
		if _, err := NewNode(test.ca, 2, node2, time.Hour); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("got %v, want %q", err, test.want)
		}
	}
}
