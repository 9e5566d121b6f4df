package transport

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/aiondb/aiondb-ha/protocol"
)

// A probe is answered without being asked anything:
//
//	version u8 | node_id u64 LE | instance (16 random bytes)
//
// That it can be read at all says that both sides took the other's secret.
const (
	probeVersion = 1
	instanceSize = 16
	probeSize    = 1 + 8 + instanceSize

	// probeTimeout bounds each side of a probe where ctx does not.
	probeTimeout = HandshakeTimeout
	// maxProbes is how many addresses are probed at a time.
	maxProbes = 16
)

// PeerReport sorts the addresses of CheckPeers, each list in the order given.
type PeerReport struct {
	Accepted    []string                   // nodes of this cluster
	Rejected    []string                   // nodes that have another secret, or certificates that do not go together with ours
	Unreachable []string                   // nobody there, not a node, or no answer in time
	Self        []string                   // this very node: left out of Accepted
	Nodes       map[string]protocol.NodeID // what those in Accepted and Self say they are; 0 while they do not know yet
	Errors      map[string]error           // why, for Rejected and Unreachable
}

// CheckPeers probes every address once, in parallel, within ctx and at most
// HandshakeTimeout each, and sorts them. It is a question, not a gate: nodes
// that are not started yet are unreachable.
func CheckPeers(ctx context.Context, m *Mux, addrs []string) PeerReport {
	type result struct {
		node protocol.NodeID
		self bool
		err  error
	}
	results := make([]result, len(addrs))
	var wg sync.WaitGroup
	slots := make(chan struct{}, maxProbes)
	for i, addr := range addrs {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			r := &results[i]
			r.node, r.self, r.err = m.probe(ctx, addr)
		})
	}
	wg.Wait()
	report := PeerReport{Nodes: make(map[string]protocol.NodeID), Errors: make(map[string]error)}
	for i, addr := range addrs {
		switch r := results[i]; {
		case errors.Is(r.err, ErrWrongSecret), errors.Is(r.err, ErrCertificate):
			report.Rejected = append(report.Rejected, addr)
			report.Errors[addr] = r.err
		case r.err != nil:
			report.Unreachable = append(report.Unreachable, addr)
			report.Errors[addr] = r.err
		case r.self:
			report.Self = append(report.Self, addr)
			report.Nodes[addr] = r.node
		default:
			report.Accepted = append(report.Accepted, addr)
			report.Nodes[addr] = r.node
		}
	}
	return report
}

// probe asks one address who it is.
func (m *Mux) probe(ctx context.Context, addr string) (node protocol.NodeID, self bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, err := m.Dial(ctx, addr, ALPNProbe)
	if err != nil {
		return 0, false, err
	}
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })()
	var answer [probeSize]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		if ctx.Err() != nil && !errors.Is(err, ErrWrongSecret) && !errors.Is(err, ErrCertificate) {
			err = fmt.Errorf("probe %s: no answer: %w", addr, context.Cause(ctx))
		}
		return 0, false, err
	}
	if answer[0] != probeVersion {
		return 0, false, fmt.Errorf("probe %s: answer of version %d, want %d: run the same release on all nodes", addr, answer[0], probeVersion)
	}
	node = protocol.NodeID(binary.LittleEndian.Uint64(answer[1:9]))
	return node, bytes.Equal(answer[9:], m.instance[:]), nil
}

// answerProbes answers each connection and closes it.
func (m *Mux) answerProbes(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		var answer [probeSize]byte
		answer[0] = probeVersion
		binary.LittleEndian.PutUint64(answer[1:9], m.node.Load())
		copy(answer[9:], m.instance[:])
		// The answer fits every socket buffer; the deadline is for a peer that
		// has closed its window.
		_ = conn.SetWriteDeadline(time.Now().Add(probeTimeout))
		_, _ = conn.Write(answer[:])
		_ = conn.Close()
	}
}
