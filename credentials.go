package ha

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/aiondb/aiondb-ha/internal/httpapi"
	"github.com/aiondb/aiondb-ha/internal/transport"
	"github.com/aiondb/aiondb-ha/protocol"
)

const (
	// CredentialInterval is how often Config.Reload is asked. What it returns is
	// taken when it has returned the same twice, so that files in the middle of
	// being written are not.
	CredentialInterval = time.Second
	// CertificateWarning is how long before its end a certificate is warned of.
	CertificateWarning = httpapi.ExpirySoon
	// certificateWarningPause is the time between two such lines in the log.
	certificateWarningPause = 24 * time.Hour
)

// Credentials are what a node proves itself with and accepts of others.
type Credentials struct {
	// Secret is the cluster secret, at least protocol.MinSecretLen bytes, the
	// same on all nodes. Everything nodes prove to each other and encrypt with
	// is derived from it.
	Secret Secret

	// OtherSecrets are accepted from others but not used for sending: the next
	// secret or the previous one, while nodes go from one to the other.
	OtherSecrets []Secret

	// CA, Certificate and Key, PEM, take the place of the TLS key derived from
	// the secret; all three or none. CA holds the certificates of the
	// authorities that sign the nodes of this cluster and nothing else;
	// Certificate is this node's, followed by what leads to a CA; it names the
	// node by the URI aiondb-ha://node/ID.
	CA          []byte
	Certificate []byte
	Key         Secret
}

// digest tells whether credentials are the same, without keeping them.
func (c Credentials) digest() [sha256.Size]byte {
	h := sha256.New()
	add := func(b []byte) {
		h.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(b))))
		h.Write(b)
	}
	add(c.Secret.Bytes())
	add(c.CA)
	add(c.Certificate)
	add(c.Key.Bytes())
	for _, s := range c.OtherSecrets {
		add(s.Bytes())
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// validate returns what is wrong with c. Certificates are looked into by identity.
func (c Credentials) validate() (faults []error) {
	for i, s := range append([]Secret{c.Secret}, c.OtherSecrets...) {
		if s.Len() < protocol.MinSecretLen {
			name := "cluster secret"
			if i > 0 {
				name = fmt.Sprintf("other cluster secret %d", i)
			}
			faults = append(faults, fmt.Errorf("%s: %d bytes, at least %d are needed: make one with `aiondb-ha token`", name, s.Len(), protocol.MinSecretLen))
		}
	}
	if some := len(c.CA) > 0 || len(c.Certificate) > 0 || c.Key.Len() > 0; some && (len(c.CA) == 0 || len(c.Certificate) == 0 || c.Key.Len() == 0) {
		faults = append(faults, errors.New("of CA, certificate and key some are missing: give all three, or none"))
	}
	return faults
}

// secrets returns the secret to use and those to accept besides, in this order.
func (c Credentials) secrets() [][]byte {
	all := [][]byte{c.Secret.Bytes()}
	for _, s := range c.OtherSecrets {
		all = append(all, s.Bytes())
	}
	return all
}

// identity makes of credentials what a node's port works with.
func (c Credentials) identity(node protocol.NodeID) (*transport.Identity, error) {
	if err := errors.Join(c.validate()...); err != nil {
		return nil, err
	}
	id, err := transport.NewIdentity(c.secrets()...)
	if err != nil || len(c.CA) == 0 {
		return id, err
	}
	if id, err = id.WithCertificates(c.CA, c.Certificate, c.Key.Bytes()); err != nil {
		return nil, err
	}
	if named := id.Certificate().Node; named != node {
		return nil, fmt.Errorf("the certificate names node %d, and this is node %d: give it a certificate of its own", named, node)
	}
	return id, nil
}

// CredentialStatus says what a node proves itself with, without showing it.
type CredentialStatus struct {
	// Secrets names the accepted secrets, the one used for sending first. A
	// name says nothing of a secret but whether it is the same on two nodes.
	Secrets     []string           `json:"secrets"`
	Certificate *CertificateStatus `json:"certificate"` // null: the secret is all there is
	Fault       string             `json:"fault"`       // why what is there now is not used; "" if it is

	APICertificate *APICertificateStatus `json:"api_certificate"` // null: none is known of
}

// CertificateStatus describes the certificate in use.
type CertificateStatus struct {
	Serial    string    `json:"serial"` // hexadecimal
	NotAfter  time.Time `json:"not_after"`
	ExpiresS  int64     `json:"expires_s"` // seconds left; negative once it is over
	CAs       []string  `json:"cas"`       // the first bytes of the SHA-256 of those accepted, hexadecimal
	CAExpires time.Time `json:"ca_not_after"`
	Warning   string    `json:"warning"` // from CertificateWarning before the end on
}

// APICertificateStatus describes the certificate that the HTTP API presents.
type APICertificateStatus struct {
	NotAfter time.Time `json:"not_after"`
	ExpiresS int64     `json:"expires_s"` // seconds left; negative once it is over
	Fault    string    `json:"fault"`     // why a newer one is not used; "" if there is none
	Warning  string    `json:"warning"`   // from CertificateWarning before the end on
}

// newAPICertificateStatus asks of, which may be nil, for what it is at now.
func newAPICertificateStatus(of func() (time.Time, string), now time.Time) *APICertificateStatus {
	if of == nil {
		return nil
	}
	end, fault := of()
	left := end.Sub(now)
	s := &APICertificateStatus{NotAfter: end, ExpiresS: int64(left.Seconds()), Fault: fault}
	switch {
	case left <= 0:
		s.Warning = fmt.Sprintf("the API's certificate ended on %s: clients do not trust it any more", end.Format(time.DateOnly))
	case left < CertificateWarning:
		s.Warning = fmt.Sprintf("the API's certificate ends on %s: replace it before", end.Format(time.DateOnly))
	}
	return s
}

// credentialKeeper renews what a node proves itself with while it runs.
type credentialKeeper struct {
	node   *Node
	reload func() (Credentials, error) // nil: never

	pass   sync.Mutex // held while looking
	used   [sha256.Size]byte
	seen   [sha256.Size]byte // what the last look found
	warned time.Time
	logged string // the last fault in the log
	doubt  string // the fault of the last look

	mu    sync.Mutex
	fault string
}

func newCredentialKeeper(n *Node, p *Prepared) *credentialKeeper {
	return &credentialKeeper{node: n, reload: p.config.Reload, used: p.digest, seen: p.digest}
}

// keep looks at the credentials until the node is closed.
func (k *credentialKeeper) keep() {
	tick := time.NewTicker(CredentialInterval)
	defer tick.Stop()
	for {
		k.warn()
		select {
		case <-tick.C:
			_ = k.look(false)
		case <-k.node.life.Done():
			return
		}
	}
}

// look takes new credentials if there are any: at once, or when they have been
// found twice. It returns why it could not.
func (k *credentialKeeper) look(atOnce bool) error {
	if k.reload == nil {
		return nil
	}
	k.pass.Lock()
	defer k.pass.Unlock()
	err := k.take(atOnce)
	text := ""
	if err != nil {
		text = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	k.mu.Lock()
	k.fault = text
	k.mu.Unlock()
	if text != k.logged && (atOnce || text == k.doubt) {
		if k.logged = text; text != "" {
			k.node.config.Logger.Error("the new credentials are not used, the old ones stay in use", "reason", text)
		}
	}
	k.doubt = text
	return err
}

func (k *credentialKeeper) take(atOnce bool) error {
	c, err := k.reload()
	if err != nil {
		return err
	}
	digest := c.digest()
	found := k.seen
	k.seen = digest
	if digest == k.used || (digest != found && !atOnce) {
		return nil
	}
	n := k.node
	id, err := c.identity(n.config.NodeID)
	if err != nil {
		return err
	}
	if old := n.mux.Identity(); (old.Certificate() == nil) != (id.Certificate() == nil) {
		return errors.New("certificates cannot be brought in or given up while a node runs: the others would not know it any more; restart all nodes with them")
	}
	n.mux.Renew(id) // accepted from now on, before anything is sent with it
	if g := n.gossip.Load(); g != nil {
		if err := g.SetKeys(id.GossipKeys()); err != nil {
			return err
		}
	}
	n.access.SetSecrets(c.secrets()) // API tokens are derived from them
	k.used = digest
	k.warned = time.Time{}
	args := []any{"secrets", strings.Join(id.KeyIDs(), " ")}
	if cert := id.Certificate(); cert != nil {
		args = append(args, "certificate", cert.Serial, "until", cert.NotAfter)
	}
	n.config.Logger.Info("new credentials are in use", args...)
	return nil
}

// warn says that the certificate ends soon, once a day.
func (k *credentialKeeper) warn() {
	s := k.status()
	k.pass.Lock()
	defer k.pass.Unlock()
	if s.Certificate == nil || s.Certificate.Warning == "" || time.Since(k.warned) < certificateWarningPause {
		return
	}
	k.warned = time.Now()
	k.node.config.Logger.Warn(s.Certificate.Warning)
}

func (k *credentialKeeper) status() CredentialStatus {
	id := k.node.mux.Identity()
	k.mu.Lock()
	s := CredentialStatus{Secrets: id.KeyIDs(), Fault: k.fault}
	k.mu.Unlock()
	s.APICertificate = newAPICertificateStatus(k.node.config.APICertificate, time.Now())
	cert := id.Certificate()
	if cert == nil {
		return s
	}
	left := time.Until(cert.NotAfter)
	s.Certificate = &CertificateStatus{Serial: cert.Serial, NotAfter: cert.NotAfter, ExpiresS: int64(left.Seconds()), CAs: cert.CAs, CAExpires: cert.CAEnd}
	switch caLeft := time.Until(cert.CAEnd); {
	case left <= 0:
		s.Certificate.Warning = fmt.Sprintf("this node's certificate ended on %s: other nodes take no new connection of it", cert.NotAfter.Format(time.DateOnly))
	case left < CertificateWarning:
		s.Certificate.Warning = fmt.Sprintf("this node's certificate ends on %s: replace it before", cert.NotAfter.Format(time.DateOnly))
	case caLeft < CertificateWarning:
		s.Certificate.Warning = fmt.Sprintf("the CA's certificate ends on %s: replace it, and the nodes', before", cert.CAEnd.Format(time.DateOnly))
	}
	return s
}

// ReloadCredentials asks Config.Reload now and takes what it returns at once.
// Without a Reload it does nothing. On an error what was in use stays in use.
func (n *Node) ReloadCredentials() error {
	if err := n.running(); err != nil {
		return err
	}
	return n.credentials.look(true)
}
