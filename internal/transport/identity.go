package transport

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"time"

	"github.com/aiondb/aiondb-ha/protocol"
)

// What the keys are derived for. Changing one of these strings makes old and
// new nodes strangers to each other.
const (
	derivationSalt = "aiondb-ha/1"
	labelTLS       = "tls identity ed25519"
	labelGossip    = "gossip aes-256"
	labelMessage   = "message hmac-sha256"
	labelKnock     = "knock hmac-sha256"
	labelKeyID     = "key id"

	derivedKeySize = 32 // bytes, each
	keyIDSize      = 4  // bytes
)

// maxSecrets bounds how many secrets an Identity accepts: each costs a
// comparison per handshake and a trial decryption per foreign gossip packet.
const maxSecrets = 8

// Identity is what a node derives from the cluster secrets: the key it proves
// itself with, the keys it accepts, and the keys of gossip and messages. With
// certificates of the operator (see WithCertificates) those take the place of
// the derived TLS key, and the secret is needed all the same.
//
// It is immutable and safe for concurrent use; Mux.Renew puts another one in
// its place. It keeps no secret, only what was derived, and prints as a
// redacted word in every format.
type Identity struct {
	accepted []credential  // [0] is the one presented
	certs    *certificates // nil: TLS by the secret
}

// credential is what one secret gives.
type credential struct {
	cert    tls.Certificate
	public  ed25519.PublicKey
	gossip  []byte
	packets cipher.AEAD // of the gossip key
	message []byte
	knock   []byte
	keyID   string
}

// NewIdentity derives an identity. The first secret is the one the node
// presents and sends with; all are accepted of others. Each must have at
// least protocol.MinSecretLen bytes (protocol.ErrShortSecret otherwise); the
// same secret twice counts once. The secrets are neither kept nor changed.
//
// The certificate can be seen by anyone who connects, so the secret must not
// be guessable: 32 random bytes, not a password.
func NewIdentity(secrets ...[]byte) (*Identity, error) {
	if len(secrets) == 0 {
		return nil, errors.New("no cluster secret: give the node the secret all nodes share")
	}
	if len(secrets) > maxSecrets {
		return nil, fmt.Errorf("%d cluster secrets: at most %d are accepted at a time, remove the old ones", len(secrets), maxSecrets)
	}
	id := &Identity{}
	for i, secret := range secrets {
		if len(secret) < protocol.MinSecretLen {
			return nil, fmt.Errorf("cluster secret %d of %d has %d bytes, want at least %d: %w",
				i+1, len(secrets), len(secret), protocol.MinSecretLen, protocol.ErrShortSecret)
		}
		c, err := deriveCredential(secret)
		if err != nil {
			return nil, fmt.Errorf("derive the identity of cluster secret %d of %d: %w", i+1, len(secrets), err)
		}
		if id.find(c.public) == nil {
			id.accepted = append(id.accepted, c)
		}
	}
	return id, nil
}

// deriveCredential expands one secret into its keys and its certificate.
func deriveCredential(secret []byte) (credential, error) {
	derive := func(label string) ([]byte, error) {
		return hkdf.Key(sha256.New, secret, []byte(derivationSalt), label, derivedKeySize)
	}
	seed, err := derive(labelTLS)
	if err != nil {
		return credential{}, err
	}
	gossip, err := derive(labelGossip)
	if err != nil {
		return credential{}, err
	}
	message, err := derive(labelMessage)
	if err != nil {
		return credential{}, err
	}
	knock, err := derive(labelKnock)
	if err != nil {
		return credential{}, err
	}
	keyID, err := hkdf.Key(sha256.New, secret, []byte(derivationSalt), labelKeyID, keyIDSize)
	if err != nil {
		return credential{}, err
	}
	block, err := aes.NewCipher(gossip)
	if err != nil {
		return credential{}, err
	}
	packets, err := cipher.NewGCM(block)
	if err != nil {
		return credential{}, err
	}
	key := ed25519.NewKeyFromSeed(seed)
	public, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return credential{}, errors.New("an ed25519 key without an ed25519 public key")
	}
	der, err := certificateOf(key, public)
	if err != nil {
		return credential{}, err
	}
	return credential{
		cert:    tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
		public:  public,
		gossip:  gossip,
		packets: packets,
		message: message,
		knock:   knock,
		keyID:   hex.EncodeToString(keyID),
	}, nil
}

// certificateOf wraps the key into a certificate that is the same bytes on
// every node and on every day: nothing in it but the public key is ever
// looked at.
func certificateOf(key ed25519.PrivateKey, public ed25519.PublicKey) ([]byte, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "aiondb-ha node"},
		NotBefore:    time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	return x509.CreateCertificate(rand.Reader, template, template, public, key)
}

// GossipKeys returns a copy of the gossip keys, 32 bytes each (AES-256): the
// first encrypts, all decrypt.
func (id *Identity) GossipKeys() [][]byte {
	keys := make([][]byte, len(id.accepted))
	for i, c := range id.accepted {
		keys[i] = append([]byte(nil), c.gossip...)
	}
	return keys
}

// find returns the accepted credential of a public key, nil if there is none.
// Every accepted key is compared, each in constant time.
func (id *Identity) find(public ed25519.PublicKey) *credential {
	var found *credential
	for i := range id.accepted {
		if subtle.ConstantTimeCompare(id.accepted[i].public, public) == 1 {
			found = &id.accepted[i]
		}
	}
	return found
}

// KeyIDs names the accepted secrets, the one that is presented first. A key ID
// says nothing of the secret but whether it is the same on two nodes.
func (id *Identity) KeyIDs() []string {
	ids := make([]string, len(id.accepted))
	for i, c := range id.accepted {
		ids[i] = c.keyID
	}
	return ids
}

// holds reports whether the secret of c is accepted.
func (id *Identity) holds(c *credential) bool { return id.find(c.public) != nil }

// opens reports whether a gossip packet was encrypted with an accepted key, as
// memberlist does: version (1) | nonce (12) | AES-GCM. scratch is overwritten.
func (id *Identity) opens(packet, scratch []byte) bool {
	const nonceAt, cipherAt = 1, 1 + 12
	if len(packet) < minPacket || packet[0] > maxPacketVersion {
		return false
	}
	for i := range id.accepted {
		if _, err := id.accepted[i].packets.Open(scratch[:0], packet[nonceAt:cipherAt], packet[cipherAt:], nil); err == nil {
			return true
		}
	}
	return false
}

const redacted = "transport.Identity(redacted)"

// String returns a fixed word: nothing derived from a secret is ever printed.
func (id Identity) String() string { return redacted }

// GoString is String, for %#v.
func (id Identity) GoString() string { return redacted }

// Format writes the word of String whatever the verb.
func (id Identity) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue is String, for log/slog.
func (id Identity) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText is String, for JSON and other encoders.
func (id Identity) MarshalText() ([]byte, error) { return []byte(redacted), nil }
