package transport

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"

	"github.com/aiondb/aiondb-ha/protocol"
)

// What callers decide on.
var (
	// ErrWrongSecret: the two nodes do not share a secret. See WrongSecretError.
	ErrWrongSecret = errors.New("another cluster secret")
	// ErrCertificate: one of the two nodes does not accept the other's
	// certificate. See CertificateError.
	ErrCertificate = errors.New("certificate not accepted")
	// ErrPortTaken: the HA port is in use by another process. See PortTakenError.
	ErrPortTaken = errors.New("port in use")
	// ErrClosed: the Mux or Messenger was closed.
	ErrClosed = errors.New("transport closed")
	// ErrWrongNode: another node than the one asked for answers there. See WrongNodeError.
	ErrWrongNode = errors.New("another node answers at that address")
	// ErrUnknownAddress: no address is known for a node ID.
	ErrUnknownAddress = errors.New("address not known")
	// ErrNotSent: a call's request was certainly not executed. See CallError.
	ErrNotSent = errors.New("request not sent")
	// ErrNoAnswer: a call's request may or may not have been executed, now or
	// later. See CallError.
	ErrNoAnswer = errors.New("request sent, no answer: it may or may not have been done")
)

// WrongSecretError says that a peer proved another cluster secret than ours,
// or refused ours. errors.Is(err, ErrWrongSecret) holds.
type WrongSecretError struct {
	Addr   string // the peer; empty where it is not known
	ByPeer bool   // true: the peer refused our secret; false: we refused its
}

func (e *WrongSecretError) Error() string {
	who := "the peer"
	if e.Addr != "" {
		who = e.Addr
	}
	if e.ByPeer {
		return who + " refused our cluster secret: give all nodes the same AIONDB_HA_AUTH_TOKEN"
	}
	return who + " has another cluster secret: give all nodes the same AIONDB_HA_AUTH_TOKEN"
}

// Is makes errors.Is(err, ErrWrongSecret) true.
func (e *WrongSecretError) Is(target error) bool { return target == ErrWrongSecret }

// CertificateError says that a certificate of the operator was not accepted.
// errors.Is(err, ErrCertificate) holds.
type CertificateError struct {
	Addr   string // the peer; empty where it is not known
	ByPeer bool   // true: the peer refused our certificate; false: we refused its
	Err    error  // why; nil where only the peer knows
}

func (e *CertificateError) Error() string {
	who := "the peer"
	if e.Addr != "" {
		who = e.Addr
	}
	switch {
	case e.ByPeer:
		return who + " refused our certificate: its log says why"
	case e.Addr == "":
		return fmt.Sprintf("certificate not accepted: %v", e.Err)
	}
	return fmt.Sprintf("the certificate of %s is not accepted: %v", who, e.Err)
}

// Is makes errors.Is(err, ErrCertificate) true.
func (e *CertificateError) Is(target error) bool { return target == ErrCertificate }

// Unwrap returns why.
func (e *CertificateError) Unwrap() error { return e.Err }

// isAlert reports whether err is an alert the peer has sent, and whether it is
// the one named, any if the name is empty. crypto/tls exports neither its alert
// type for TCP connections nor the numbers; the operation's name and the alert's
// text are what tells them.
func isAlert(err error, name string) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error" && strings.HasSuffix(op.Err.Error(), name)
}

// refusedByPeer turns the error of the first read on a dialed connection into
// a WrongSecretError or CertificateError if it is the peer's alert, which at
// that place means that the peer did not accept our certificate. Other errors
// pass unchanged.
func (id *Identity) refusedByPeer(err error, addr string) error {
	switch {
	case !isAlert(err, ""):
		return err
	case id.certs != nil:
		return &CertificateError{Addr: addr, ByPeer: true}
	}
	return &WrongSecretError{Addr: addr, ByPeer: true}
}

// PortTakenError says which address could not be bound because it is in use.
// errors.Is(err, ErrPortTaken) holds.
type PortTakenError struct {
	Network string // "tcp" or "udp"
	Addr    string // host:port
}

func (e *PortTakenError) Error() string {
	return fmt.Sprintf("HA address %s (%s) is in use by another process: stop it, or give this node another port "+
		"(AIONDB_HA_PORT and its entry in AIONDB_HA_CLUSTER_NODES)", e.Addr, e.Network)
}

// Is makes errors.Is(err, ErrPortTaken) true.
func (e *PortTakenError) Is(target error) bool { return target == ErrPortTaken }

// bindError words the failure to bind addr.
func bindError(network, addr string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return &PortTakenError{Network: network, Addr: addr}
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("HA address %s (%s) is not an address of this machine: set the bind address to one that is, or to 0.0.0.0 (%w)",
			addr, network, err)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("HA address %s (%s) may not be bound by this user: choose a port from 1024 up (%w)", addr, network, err)
	}
	return fmt.Errorf("bind the HA address %s (%s): %w", addr, network, err)
}

// WrongNodeError says that the node that answers at Addr is not the one the
// call was for. errors.Is(err, ErrWrongNode) holds.
type WrongNodeError struct {
	Addr string
	Want protocol.NodeID
	Got  protocol.NodeID
}

func (e *WrongNodeError) Error() string {
	return fmt.Sprintf("%s is node %d, not node %d: check the order of the node list and the node IDs", e.Addr, e.Got, e.Want)
}

// Is makes errors.Is(err, ErrWrongNode) true.
func (e *WrongNodeError) Is(target error) bool { return target == ErrWrongNode }

// CallError says how a Messenger.Call failed. errors.Is holds for exactly one
// of ErrNotSent and ErrNoAnswer, and for what Err wraps.
type CallError struct {
	To   protocol.NodeID
	Addr string // empty if none was known
	Sent bool   // false: certainly not executed, may be repeated; true: may or may not have been, now or later
	Err  error
}

func (e *CallError) Error() string {
	kind := ErrNotSent
	if e.Sent {
		kind = ErrNoAnswer
	}
	if e.Addr == "" {
		return fmt.Sprintf("call node %d: %v: %v", e.To, kind, e.Err)
	}
	return fmt.Sprintf("call node %d at %s: %v: %v", e.To, e.Addr, kind, e.Err)
}

// Is tells the two kinds apart.
func (e *CallError) Is(target error) bool {
	return (target == ErrNotSent && !e.Sent) || (target == ErrNoAnswer && e.Sent)
}

// Unwrap returns the cause.
func (e *CallError) Unwrap() error { return e.Err }
