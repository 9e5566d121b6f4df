package transport

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/aiondb/aiondb-ha/protocol"
)

// A node certificate names its node in a URI subject alternative name:
//
//	aiondb-ha://node/3
//
// Other names in it decide nothing. It must be good for both ends of a
// connection (extended key usage serverAuth and clientAuth).
const (
	nodeURIScheme = "aiondb-ha"
	nodeURIHost   = "node"
	// caNameSize is how much of its SHA-256 names a CA, bytes.
	caNameSize = 4
	// maxChain bounds the certificates a peer may send.
	maxChain = 8
)

// NodeURI returns the URI by which a certificate names a node.
func NodeURI(id protocol.NodeID) *url.URL {
	return &url.URL{Scheme: nodeURIScheme, Host: nodeURIHost, Path: "/" + id.String()}
}

// CertificateInfo describes the certificate a node presents.
type CertificateInfo struct {
	Node     protocol.NodeID // whom it names
	Serial   string          // hexadecimal
	NotAfter time.Time       // the earliest end of it and of the chain it came with
	CAEnd    time.Time       // when the last of the CA's certificates ends
	CAs      []string        // the first bytes of each CA certificate's SHA-256, hexadecimal
}

// certificates is the operator's part of an Identity.
type certificates struct {
	roots *x509.CertPool
	own   tls.Certificate
	info  CertificateInfo
}

// WithCertificates returns an identity that proves itself by the operator's
// certificate instead of the secret's, and accepts every certificate that ca
// has signed and that names a node. All three are PEM; ca may hold several
// certificates, cert the chain that leads to one of them, its own first.
//
// The secret is needed all the same: for the knock, for gossip and for messages.
// The CA must sign nodes of this cluster and nothing else.
func (id *Identity) WithCertificates(ca, cert, key []byte) (*Identity, error) {
	c := &certificates{roots: x509.NewCertPool()}
	count := 0
	for rest := bytes.TrimSpace(ca); len(rest) > 0; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, errors.New("the CA file holds something that is no PEM block")
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("the CA file holds a block of type %q: it must hold certificates only", block.Type)
		}
		root, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d in the CA file: %w", count+1, err)
		}
		if !root.IsCA {
			return nil, fmt.Errorf("certificate %d in the CA file (%s) is not a CA's", count+1, root.Subject)
		}
		c.roots.AddCert(root)
		sum := sha256.Sum256(root.Raw)
		c.info.CAs = append(c.info.CAs, hex.EncodeToString(sum[:caNameSize]))
		if root.NotAfter.After(c.info.CAEnd) {
			c.info.CAEnd = root.NotAfter
		}
		count++
		rest = bytes.TrimSpace(rest)
	}
	if count == 0 {
		return nil, errors.New("the CA file holds no certificate")
	}
	var err error
	if c.own, err = tls.X509KeyPair(cert, key); err != nil {
		// The error names blocks and key types, never their content.
		return nil, fmt.Errorf("the certificate and its key: %w", err)
	}
	chain := make([]*x509.Certificate, 0, len(c.own.Certificate))
	for _, der := range c.own.Certificate {
		parsed, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("the certificate: %w", err)
		}
		chain = append(chain, parsed)
		if c.info.NotAfter.IsZero() || parsed.NotAfter.Before(c.info.NotAfter) {
			c.info.NotAfter = parsed.NotAfter
		}
	}
	c.info.Serial = chain[0].SerialNumber.Text(16)
	// What the others will ask of it is asked here first.
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		if c.info.Node, err = c.check(chain, usage, time.Now()); err != nil {
			return nil, fmt.Errorf("this node's own certificate: %w", err)
		}
	}
	return &Identity{accepted: id.accepted, certs: c}, nil
}

// Certificate describes the certificate presented; nil if the secret does for it.
func (id *Identity) Certificate() *CertificateInfo {
	if id.certs == nil {
		return nil
	}
	info := id.certs.info
	return &info
}

// check verifies a peer's chain at a time and returns the node it names. Every
// error is a CertificateError.
func (c *certificates) check(chain []*x509.Certificate, usage x509.ExtKeyUsage, at time.Time) (protocol.NodeID, error) {
	if len(chain) == 0 || len(chain) > maxChain {
		return protocol.NoNode, &CertificateError{Err: fmt.Errorf("a chain of %d certificates, want 1 to %d", len(chain), maxChain)}
	}
	between := x509.NewCertPool()
	for _, cert := range chain[1:] {
		between.AddCert(cert)
	}
	if _, err := chain[0].Verify(x509.VerifyOptions{
		Roots: c.roots, Intermediates: between, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{usage},
	}); err != nil {
		return protocol.NoNode, &CertificateError{Err: err}
	}
	node, err := nodeOf(chain[0])
	if err != nil {
		return protocol.NoNode, &CertificateError{Err: err}
	}
	return node, nil
}

// nodeOf returns the node a certificate names: exactly one.
func nodeOf(cert *x509.Certificate) (protocol.NodeID, error) {
	node := protocol.NoNode
	for _, uri := range cert.URIs {
		if uri.Scheme != nodeURIScheme {
			continue
		}
		id, err := protocol.ParseNodeID(strings.TrimPrefix(uri.Path, "/"))
		if err != nil || id == protocol.NoNode || uri.String() != NodeURI(id).String() {
			return protocol.NoNode, fmt.Errorf("the name %q is not of the form %s", uri, NodeURI(1))
		}
		if node != protocol.NoNode {
			return protocol.NoNode, fmt.Errorf("it names more than one node: %s and %s", NodeURI(node), uri)
		}
		node = id
	}
	if node == protocol.NoNode {
		return protocol.NoNode, fmt.Errorf("it names no node: a URI subject alternative name such as %s is missing", NodeURI(1))
	}
	return node, nil
}
