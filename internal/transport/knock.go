package transport

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
)

// The knock is how a dialing node shows with its very first bytes, before the
// other side has computed or said anything, that it holds the cluster secret.
// It stands where TLS has the server's name:
//
//	hex(nonce, 16 random bytes) "." hex(HMAC-SHA256(knock key, nonce), 16 bytes)
//
// It decides what a node spends on a stranger: the reading of one ClientHello
// and an HMAC per accepted secret, and not a byte in answer. It does not
// replace what follows: both sides still prove themselves by certificate. Whoever
// listens in may repeat a knock and gains one handshake that fails, if the
// nonce is not remembered any more.
const (
	knockPart = 16 // bytes
	knockText = 2*2*knockPart + 1
)

// Reasons to close before the handshake. They stay inside this package.
var (
	errStranger    = errors.New("no knock of ours")
	errOtherSecret = errors.New("knocks with another secret")
	errRepeated    = errors.New("repeats a knock")
	errCrowded     = errors.New("too many handshakes under way")
)

func (c *credential) knockMAC(nonce []byte) []byte {
	h := hmac.New(sha256.New, c.knock)
	h.Write(nonce)
	return h.Sum(nil)[:knockPart]
}

// newKnock returns a knock that was never used.
func (c *credential) newKnock() string {
	var nonce [knockPart]byte
	_, _ = rand.Read(nonce[:]) // never fails: crypto/rand ends the process instead
	return hex.EncodeToString(nonce[:]) + "." + hex.EncodeToString(c.knockMAC(nonce[:]))
}

// parseKnock takes a server name apart; false if it is no knock.
func parseKnock(name string) (nonce, mac [knockPart]byte, ok bool) {
	if len(name) != knockText {
		return nonce, mac, false
	}
	n, m, ok := strings.Cut(name, ".")
	if !ok || len(n) != len(m) {
		return nonce, mac, false
	}
	if _, err := hex.Decode(nonce[:], []byte(n)); err != nil {
		return nonce, mac, false
	}
	_, err := hex.Decode(mac[:], []byte(m))
	return nonce, mac, err == nil
}

// knocked returns the credential a knock was made with, nil if it is none of
// the accepted ones. Each is compared, in constant time.
func (id *Identity) knocked(nonce, mac [knockPart]byte) *credential {
	var found *credential
	for i := range id.accepted {
		if hmac.Equal(id.accepted[i].knockMAC(nonce[:]), mac[:]) {
			found = &id.accepted[i]
		}
	}
	return found
}

// maxNonces bounds how many knocks are remembered, twice.
const maxNonces = 4096

// nonces remembers the knocks of the last maxNonces connections at least. It
// is safe for concurrent use.
type nonces struct {
	mu       sync.Mutex
	new, old map[[knockPart]byte]struct{}
}

// first reports whether a nonce was not seen before, and remembers it.
func (n *nonces) first(nonce [knockPart]byte) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.new[nonce]; ok {
		return false
	}
	if _, ok := n.old[nonce]; ok {
		return false
	}
	if n.new == nil || len(n.new) >= maxNonces {
		n.old, n.new = n.new, make(map[[knockPart]byte]struct{})
	}
	n.new[nonce] = struct{}{}
	return true
}

// maxBeforeKnock bounds what is read of a connection before it has knocked,
// bytes: several times a ClientHello of ours.
const maxBeforeKnock = 8 << 10

// muteConn is an accepted connection that says nothing until the other side
// has knocked: what TLS would answer a stranger goes nowhere. Nor does it
// listen for long.
type muteConn struct {
	*net.TCPConn
	open atomic.Bool
	read int // bytes, before it was opened
}

// Read reads, of one who has not knocked no more than maxBeforeKnock bytes.
func (c *muteConn) Read(p []byte) (int, error) {
	if c.open.Load() {
		return c.TCPConn.Read(p)
	}
	if c.read >= maxBeforeKnock {
		return 0, errStranger
	}
	n, err := c.TCPConn.Read(p[:min(len(p), maxBeforeKnock-c.read)])
	c.read += n
	return n, err
}

// Write writes, or before the knock pretends to.
func (c *muteConn) Write(p []byte) (int, error) {
	if !c.open.Load() {
		return len(p), nil
	}
	return c.TCPConn.Write(p)
}

// accessDenied is a TLS alert record, fatal, access_denied (RFC 8446, 6): the
// one word in clear for a node of ours that has another secret.
var accessDenied = []byte{21, 3, 3, 0, 2, 2, 49}
