package e2e

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aiondb/aiondb-ha/internal/democluster"
	"github.com/aiondb/aiondb-ha/internal/pki"
	"github.com/aiondb/aiondb-ha/internal/transport"
	"github.com/aiondb/aiondb-ha/protocol"
)

// keyring is the directory of one node's secrets and certificates.
type keyring struct{ dir string }

func (k keyring) path(name string) string { return filepath.Join(k.dir, name) }

// put writes a file in one piece; empty content removes it.
func (k keyring) put(t *testing.T, name string, content []byte) {
	t.Helper()
	if len(content) == 0 {
		if err := os.Remove(k.path(name)); err != nil {
			t.Fatal(err)
		}
		return
	}
	if err := os.WriteFile(k.path(name), content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (k keyring) putPair(t *testing.T, pair pki.Pair) {
	t.Helper()
	k.put(t, "cert.pem", pair.Cert)
	k.put(t, "key.pem", pair.Key)
}

// credentials is what a node says of its own.
type credentials struct {
	Secrets     []string `json:"secrets"`
	Certificate *struct {
		Serial string   `json:"serial"`
		CAs    []string `json:"cas"`
	} `json:"certificate"`
	Fault string `json:"fault"`
}

func readCredentials(t *testing.T, n democluster.Node) (c credentials) {
	t.Helper()
	var status struct {
		Credentials credentials `json:"credentials"`
	}
	resp, err := http.Get("http://" + n.APIAddr + "/v1/status")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&status); err != nil {
		t.Fatal(err)
	}
	return status.Credentials
}

func newSecret() []byte {
	var raw [32]byte
	_, _ = rand.Read(raw[:])
	return []byte(hex.EncodeToString(raw[:]) + "\n")
}

func newAuthority(t *testing.T, name string) pki.Pair {
	t.Helper()
	ca, err := pki.NewCA(name, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func newPair(t *testing.T, ca pki.Pair, id protocol.NodeID) pki.Pair {
	t.Helper()
	pair, err := pki.NewNode(ca, id, transport.NodeURI(id), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// Secret, certificates and CA are replaced under write load, by the procedure
// of docs/rotation.md, without a failed request and without a failover.
func TestRotationUnderLoad(t *testing.T) {
	const nodes = 3
	root := t.TempDir()
	old, next := newSecret(), newSecret()
	ca, nextCA := newAuthority(t, "one"), newAuthority(t, "two")
	ring := func(id protocol.NodeID) keyring { return keyring{filepath.Join(root, "keys-"+id.String())} }
	for id := protocol.NodeID(1); id <= nodes; id++ {
		if err := os.Mkdir(ring(id).dir, 0o700); err != nil {
			t.Fatal(err)
		}
		ring(id).put(t, "secret", old)
		ring(id).put(t, "ca.pem", ca.Cert)
		ring(id).putPair(t, newPair(t, ca, id))
	}
	c := newClusterWith(t, democluster.Config{Nodes: nodes, Env: patient, NodeEnv: func(n democluster.Node) []string {
		k := ring(n.ID)
		return []string{
			"AIONDB_HA_AUTH_TOKEN_FILE=" + k.path("secret"),
			"AIONDB_HA_TLS_CA=" + k.path("ca.pem"), "AIONDB_HA_TLS_CERT=" + k.path("cert.pem"), "AIONDB_HA_TLS_KEY=" + k.path("key.pem"),
		}
	}})
	if err := c.StartAll(); err != nil {
		t.Fatal(err)
	}
	primary := settle(t, c)
	client, err := democluster.NewClient(democluster.ClientConfig{Nodes: c.Nodes(), Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	ctx := within(t, 3*time.Minute)
	if err := client.WaitAcks(ctx, 200); err != nil { // it knows the primary now
		t.Fatal(err)
	}
	before := client.Tried() - client.Count()

	// each changes something at one node after the other, while the load goes
	// on. Node 1 finds out by itself, the others are told.
	each := func(what string, change func(protocol.NodeID, keyring), taken func(credentials) bool) {
		t.Helper()
		for _, n := range c.Nodes() {
			change(n.ID, ring(n.ID))
			if n.ID != 1 {
				if err := syscall.Kill(c.PID(n.ID), syscall.SIGHUP); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.Wait(ctx, fmt.Sprintf("%s at node %d", what, n.ID), func([]democluster.Status) bool {
				return taken(readCredentials(t, n))
			}); err != nil {
				t.Fatalf("%v; it says %+v", err, readCredentials(t, n))
			}
			if err := client.WaitAcks(ctx, 20); err != nil {
				t.Fatalf("after %s at node %d: %v", what, n.ID, err)
			}
		}
	}
	first := readCredentials(t, c.Node(1)).Secrets[0]
	each("the next secret", func(_ protocol.NodeID, k keyring) { k.put(t, "secret.next", next) },
		func(c credentials) bool { return len(c.Secrets) == 2 && c.Secrets[0] == first })
	each("the change of secrets", func(_ protocol.NodeID, k keyring) {
		k.put(t, "secret.previous", old)
		k.put(t, "secret", next)
	}, func(c credentials) bool { return len(c.Secrets) == 2 && c.Secrets[1] == first })
	each("the end of the old secret", func(_ protocol.NodeID, k keyring) {
		k.put(t, "secret.next", nil)
		k.put(t, "secret.previous", nil)
	}, func(c credentials) bool { return len(c.Secrets) == 1 && c.Secrets[0] != first })

	renew := func(what string, authority pki.Pair) {
		t.Helper()
		var serials []string
		each(what, func(id protocol.NodeID, k keyring) {
			serials = append(serials, readCredentials(t, c.Node(id)).Certificate.Serial)
			k.putPair(t, newPair(t, authority, id))
		}, func(c credentials) bool { return !slices.Contains(serials, c.Certificate.Serial) && c.Fault == "" })
	}
	renew("a new certificate", ca)
	// What cannot be used is not, and is said.
	bad := ring(2)
	kept, err := os.ReadFile(bad.path("cert.pem"))
	if err != nil {
		t.Fatal(err)
	}
	for _, wrong := range [][]byte{[]byte("no PEM"), newPair(t, ca, 2).Cert, newPair(t, nextCA, 2).Cert} {
		bad.put(t, "cert.pem", wrong)
		if err := c.Wait(ctx, "a fault at node 2", func([]democluster.Status) bool {
			return strings.Contains(readCredentials(t, c.Node(2)).Fault, "certificate")
		}); err != nil {
			t.Fatal(err)
		}
	}
	bad.put(t, "cert.pem", kept)
	both := append(append([]byte(nil), ca.Cert...), nextCA.Cert...)
	each("both CAs", func(_ protocol.NodeID, k keyring) { k.put(t, "ca.pem", both) }, func(c credentials) bool { return len(c.Certificate.CAs) == 2 })
	renew("a certificate of the new CA", nextCA)
	each("the new CA alone", func(_ protocol.NodeID, k keyring) { k.put(t, "ca.pem", nextCA.Cert) }, func(c credentials) bool { return len(c.Certificate.CAs) == 1 && c.Fault == "" })

	if err := client.WaitAcks(ctx, 200); err != nil {
		t.Fatal(err)
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	failed := client.Tried() - client.Count() - before
	acks := client.Acks()
	slowest := time.Duration(0)
	for _, a := range acks {
		slowest = max(slowest, a.Acked-a.Sent)
	}
	t.Logf("%d writes acknowledged, %d failed, the slowest took %v", len(acks), failed, slowest)
	const underWay = 4 // writers, when Close came
	if failed > underWay || client.Unknown() > underWay {
		t.Errorf("%d of %d requests failed, the outcome of %d is unknown", failed, client.Tried(), client.Unknown())
	}
	now := settle(t, c)
	if now.Epoch != primary.Epoch || now.NodeID != primary.NodeID {
		t.Errorf("a failover: primary %d of epoch %d, then %d of epoch %d", primary.NodeID, primary.Epoch, now.NodeID, now.Epoch)
	}
	data, err := c.Dump(within(t, time.Minute), now.NodeID)
	if err != nil {
		t.Fatal(err)
	}
	checkRecord(t, acks, data)

	// Whoever has the old secret, or a certificate of the old CA, is a stranger now.
	for _, n := range c.Nodes() {
		for _, stale := range []struct {
			secret []byte
			from   pki.Pair
		}{{old, nextCA}, {next, ca}} {
			if err := knockAt(t, n.Addr, stale.secret, both, newPair(t, stale.from, 9)); err == nil {
				t.Errorf("node %d still takes what was replaced", n.ID)
			}
		}
		if err := knockAt(t, n.Addr, next, both, newPair(t, nextCA, 9)); err != nil {
			t.Errorf("node %d does not take what is in use: %v", n.ID, err)
		}
	}
}

// knockAt asks a node who it is, as a node with that secret and certificate.
func knockAt(t *testing.T, addr string, secret, ca []byte, pair pki.Pair) error {
	t.Helper()
	id, err := transport.NewIdentity([]byte(strings.TrimSpace(string(secret))))
	if err != nil {
		t.Fatal(err)
	}
	if id, err = id.WithCertificates(ca, pair.Cert, pair.Key); err != nil {
		t.Fatal(err)
	}
	m, err := transport.Listen("127.0.0.1:0", id, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	return transport.CheckPeers(within(t, 10*time.Second), m, []string{addr}).Errors[addr]
}
