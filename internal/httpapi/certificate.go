package httpapi

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
)

const (
	// labelAuthority is what the key of the API's authority is derived for.
	labelAuthority = "api ca ecdsa-p256"
	// leafLifetime is how long a certificate that a node makes for itself holds;
	// with a third of it left it makes another.
	leafLifetime = 90 * 24 * time.Hour
	// clockSlack is how far a client's clock may be behind.
	clockSlack = time.Hour
	// reloadEvery is how often, at most, certificate files are looked at. It is
	// done when somebody connects.
	reloadEvery = 2 * time.Second
	// ExpirySoon is how long before its end a certificate from files begins to be
	// warned about.
	ExpirySoon = 30 * 24 * time.Hour
	// maxPEMLen bounds a certificate's or key's file, in bytes.
	maxPEMLen = 1 << 20
)

// Authority signs the certificates that the nodes of a cluster make for their
// APIs when they are given none. It is derived from the cluster secret, so all
// nodes have the same, and a client that trusts it trusts all nodes.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority derives the authority of a cluster secret. The same secret gives
// the same certificate, byte for byte.
func NewAuthority(secret []byte) (*Authority, error) {
	key, err := deriveP256(secret, labelAuthority)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "aiondb-ha API authority"},
		NotBefore:             time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:              time.Date(2099, 12, 31, 23, 59, 59, 0, time.UTC),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	// Without a random source the signature is a function of key and content
	// (RFC 6979), and so is the fingerprint people compare.
	der, err := x509.CreateCertificate(nil, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make the certificate of the API's authority: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read the certificate of the API's authority: %w", err)
	}
	return &Authority{cert, key}, nil
}

// deriveP256 derives a private key. A candidate that is no scalar of the curve,
// once in 2^32, is passed over for the next one.
func deriveP256(secret []byte, label string) (*ecdsa.PrivateKey, error) {
	var last error
	for i := range 8 {
		raw, err := hkdf.Key(sha256.New, secret, []byte(derivationSalt), fmt.Sprintf("%s %d", label, i), 32)
		if err != nil {
			return nil, err
		}
		key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), raw)
		if err == nil {
			return key, nil
		}
		last = err
	}
	return nil, fmt.Errorf("derive a key: %w", last)
}

// Certificate returns the authority's certificate, for pools of trusted ones.
func (a *Authority) Certificate() *x509.Certificate { return a.cert }

// PEM returns the authority's certificate for a client's file.
func (a *Authority) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// Fingerprint returns the SHA-256 of a certificate, as tools show it.
func Fingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return string(bytes.ReplaceAll(fmt.Appendf(nil, "% X", sum), []byte(" "), []byte(":")))
}

// leaf makes a key of its own and signs a certificate for hosts: names and IP
// addresses.
func (a *Authority) leaf(hosts []string, now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial.Add(serial, big.NewInt(1)),
		Subject:      pkix.Name{CommonName: "aiondb-ha API"},
		NotBefore:    now.Add(-clockSlack),
		NotAfter:     now.Add(leafLifetime),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else if host != "" {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: key, Leaf: parsed}, nil
}

// Certificates hands out the certificate that an API presents. It is safe for
// concurrent use.
type Certificates struct {
	now   func() time.Time
	log   hclog.Logger
	hosts []string // of a certificate that the node makes itself

	certFile, keyFile string

	mu        sync.Mutex
	authority *Authority // nil: from files
	current   *tls.Certificate
	checked   time.Time // when the files were last looked at
	read      [2][]byte // what stood in them then: certificate, key's digest
	failure   string    // what was last said of them
	warned    time.Time // when it was last said that the certificate ends soon

	state atomic.Pointer[certificateState]
}

// certificateState is what Status returns.
type certificateState struct {
	notAfter time.Time
	fault    string
}

// SelfMade returns certificates for hosts that the node makes itself, signed by
// authority, and renews in time.
func SelfMade(authority *Authority, hosts []string, logger hclog.Logger) (*Certificates, error) {
	c := &Certificates{now: time.Now, log: logger, hosts: hosts}
	return c, c.SetAuthority(authority)
}

// SetAuthority makes a certificate signed by another authority, of certificates
// by SelfMade.
func (c *Certificates) SetAuthority(authority *Authority) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.authority
	c.authority = authority
	if err := c.renew(); err != nil {
		c.authority = before
		return err
	}
	c.tell()
	return nil
}

// FromFiles returns the certificate of two PEM files: the certificate with those
// that link it to its root, and the private key. When they change they are read
// again; as long as what they hold is of no use the old one is presented, and
// the log says why.
func FromFiles(certFile, keyFile string, logger hclog.Logger) (*Certificates, error) {
	c := &Certificates{now: time.Now, log: logger, certFile: certFile, keyFile: keyFile}
	if err := c.reload(); err != nil {
		return nil, err
	}
	c.tell()
	return c, nil
}

// Get is for tls.Config.GetCertificate.
func (c *Certificates) Get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.look()
	return c.current, nil
}

// Look renews the certificate, or reads its files again, when it is time: as
// Get does, for when nobody connects.
func (c *Certificates) Look() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.look()
}

// Status returns when the certificate that is presented ends, and why a newer
// one is not used, "" if there is none. It waits for no disk.
func (c *Certificates) Status() (notAfter time.Time, fault string) {
	s := c.state.Load()
	return s.notAfter, s.fault
}

// tell makes of what is now what Status returns.
func (c *Certificates) tell() {
	c.state.Store(&certificateState{c.current.Leaf.NotAfter, c.failure})
}

func (c *Certificates) look() {
	defer c.tell()
	var err error
	if c.authority != nil {
		if c.current.Leaf.NotAfter.Sub(c.now()) < leafLifetime/3 {
			err = c.renew()
		}
	} else if now := c.now(); now.Sub(c.checked) >= reloadEvery || now.Before(c.checked) {
		err = c.reload()
	} else {
		return // no news
	}
	switch {
	case err == nil:
		c.failure = ""
	case err.Error() != c.failure:
		c.failure = err.Error()
		c.log.Error("the API keeps its old certificate", "expires", c.current.Leaf.NotAfter, "error", err)
	}
}

func (c *Certificates) renew() error {
	cert, err := c.authority.leaf(c.hosts, c.now())
	if err != nil {
		return fmt.Errorf("make a certificate for the API: %w", err)
	}
	c.current = cert
	return nil
}

// reload reads the files, and takes what they hold if that is another and good.
func (c *Certificates) reload() error {
	c.checked = c.now()
	certPEM, err := readPEM(c.certFile)
	if err != nil {
		return fmt.Errorf("the API's certificate cannot be read: %w", err)
	}
	keyPEM, err := readPEM(c.keyFile)
	if err != nil {
		return fmt.Errorf("the API's key cannot be read: %w", err)
	}
	digest := sha256.Sum256(keyPEM)
	read := [2][]byte{certPEM, digest[:]}
	if c.current != nil && bytes.Equal(read[0], c.read[0]) && bytes.Equal(read[1], c.read[1]) {
		c.warn()
		return nil
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return fmt.Errorf("the API's certificate %s and key %s are of no use: %w", c.certFile, c.keyFile, err)
	}
	left := cert.Leaf.NotAfter.Sub(c.now())
	if left <= 0 {
		return fmt.Errorf("the API's certificate %s has expired at %s: put a new one in its place", c.certFile, cert.Leaf.NotAfter.Format(time.RFC3339))
	}
	if c.current != nil {
		c.log.Info("the API has a new certificate", "file", c.certFile, "expires", cert.Leaf.NotAfter)
	}
	c.current, c.read = &cert, read
	c.warn()
	return nil
}

// warn says once a day that the certificate in the file ends soon.
func (c *Certificates) warn() {
	end, now := c.current.Leaf.NotAfter, c.now()
	if end.Sub(now) < ExpirySoon && now.Sub(c.warned) >= 24*time.Hour {
		c.warned = now
		c.log.Warn("the API's certificate expires soon: put a new one in its place", "file", c.certFile, "expires", end)
	}
}

func readPEM(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxPEMLen {
		return nil, fmt.Errorf("%s is not a regular file of at most %d bytes", path, maxPEMLen)
	}
	raw, err := os.ReadFile(path) //nolint:gosec // G304: the operator names the file
	if err == nil && len(raw) == 0 {
		err = errors.New(path + " is empty")
	}
	return raw, err
}

// TLS returns the configuration of the API's listener.
func (c *Certificates) TLS() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		NextProtos:     []string{"http/1.1"},
		GetCertificate: c.Get,
	}
}
