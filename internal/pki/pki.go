// Package pki makes the certificates a cluster needs where it does not go by
// its secret alone: a CA, and a certificate for each node. It is enough for one
// cluster and its tests; an operator with a CA of their own needs none of it.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"time"

	"github.com/aiondb/aiondb-ha/protocol"
)

const (
	// backdated is how long before now a certificate begins: clocks differ.
	backdated = time.Hour
	// serialBits is the size of the random serial numbers.
	serialBits = 127
)

// Pair is a certificate and its private key, PEM.
type Pair struct {
	Cert []byte
	Key  []byte
}

// NewCA makes a CA that ends after valid.
func NewCA(name string, valid time.Duration) (Pair, error) {
	return issue(&x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}, valid, nil, nil)
}

// NewNode makes the certificate of a node, for both ends of a connection; uri
// is how it names the node (transport.NodeURI). It ends after valid, or with
// the CA if that is sooner.
func NewNode(ca Pair, id protocol.NodeID, uri *url.URL, valid time.Duration) (Pair, error) {
	issuer, key, err := parse(ca)
	if err != nil {
		return Pair{}, err
	}
	if left := time.Until(issuer.NotAfter); left < valid {
		valid = left
	}
	if valid <= 0 {
		return Pair{}, fmt.Errorf("the CA ended on %s: make a new one", issuer.NotAfter.Format(time.DateOnly))
	}
	return issue(&x509.Certificate{
		Subject:     pkix.Name{CommonName: "aiondb-ha node " + id.String()},
		URIs:        []*url.URL{uri},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, valid, issuer, key)
}

// issue signs a template with a new key by issuer, by itself if that is nil.
func issue(template *x509.Certificate, valid time.Duration, issuer *x509.Certificate, issuerKey *ecdsa.PrivateKey) (Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, err
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), serialBits)); err != nil {
		return Pair{}, err
	}
	now := time.Now()
	template.NotBefore, template.NotAfter = now.Add(-backdated), now.Add(valid)
	if issuer == nil {
		issuer, issuerKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), issuerKey)
	if err != nil {
		return Pair{}, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Pair{}, err
	}
	return Pair{
		Cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
	}, nil
}

// parse reads a CA that NewCA made.
func parse(ca Pair) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	cert, _ := pem.Decode(ca.Cert)
	key, _ := pem.Decode(ca.Key)
	if cert == nil || key == nil {
		return nil, nil, errors.New("the CA's certificate or key is not PEM")
	}
	issuer, err := x509.ParseCertificate(cert.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("the CA's certificate: %w", err)
	}
	if !issuer.IsCA {
		return nil, nil, errors.New("the CA's certificate is not a CA's")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(key.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("the CA's key: %w", err)
	}
	private, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, nil, fmt.Errorf("the CA's key is of type %T: want an ECDSA key, as aiondb-ha cert ca makes it", parsed)
	}
	return issuer, private, nil
}
