package transport

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/protocol"
)

// FuzzKnock: what a stranger can put where the knock stands. Only what a
// holder of the secret has made is one.
func FuzzKnock(f *testing.F) {
	id := identity(f, "right")
	good := id.accepted[0].newKnock()
	for _, s := range []string{good, good[:knockText-1], strings.ToUpper(good), "localhost", strings.Repeat(".", knockText), identity(f, "wrong").accepted[0].newKnock()} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		nonce, mac, ok := parseKnock(name)
		if !ok {
			return
		}
		if want := hex.EncodeToString(nonce[:]) + "." + hex.EncodeToString(mac[:]); !strings.EqualFold(want, name) {
			t.Fatalf("%q was taken for %q", name, want)
		}
		if made := bytes.Equal(id.accepted[0].knockMAC(nonce[:]), mac[:]); (id.knocked(nonce, mac) != nil) != made {
			t.Fatalf("%q: taken, not made", name)
		}
	})
}

// FuzzPacket: a packet that was changed, or made by somebody else, is none.
func FuzzPacket(f *testing.F) {
	id := identity(f, "right")
	seal := func(plain []byte) []byte {
		p := append([]byte{maxPacketVersion}, make([]byte, 12)...)
		return id.accepted[0].packets.Seal(p, p[1:13], plain, nil)
	}
	f.Add([]byte("ping"), []byte{}, uint16(0))
	f.Add([]byte{}, []byte{1}, uint16(0))
	f.Add([]byte("ping"), []byte{}, uint16(0x0105))
	scratch := make([]byte, maxPacket)
	f.Fuzz(func(t *testing.T, plain, raw []byte, change uint16) {
		if len(plain) > maxPacket-minPacket || len(raw) > maxPacket {
			return
		}
		p := seal(plain)
		p[int(change&0xff)%len(p)] ^= byte(change >> 8)
		if got, want := id.opens(p, scratch), change>>8 == 0; got != want && p[0] <= maxPacketVersion && !(p[0] == 0 && got) {
			t.Fatalf("opens: %v, want %v", got, want)
		}
		if id.opens(raw, scratch) && !bytes.Equal(raw, p) {
			t.Fatalf("%x was opened", raw)
		}
	})
}

// FuzzGreeting: what a peer can say first.
func FuzzGreeting(f *testing.F) {
	f.Add(make([]byte, greetingSize))
	f.Add(append([]byte{greetingVersion}, make([]byte, greetingSize-1)...))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var g [greetingSize]byte
		copy(g[:], raw)
		from, to, err := parseGreeting(g)
		if (err == nil) != (g[0] == greetingVersion) || err != nil && (from != protocol.NoNode || to != protocol.NoNode) {
			t.Fatalf("%d, %d, %v", from, to, err)
		}
	})
}

// oneConn is a stream layer with one connection.
type oneConn struct {
	conns chan net.Conn
	done  chan struct{}
}

func (l oneConn) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l oneConn) Close() error   { return nil }
func (l oneConn) Addr() net.Addr { return raftAddr("x:1") }
func (l oneConn) Dial(raft.ServerAddress, time.Duration) (net.Conn, error) {
	return nil, errors.New("nobody is dialed")
}

// FuzzRaftRPC: a node of the cluster sends Raft whatever it likes. Nothing
// breaks, and nothing is taken that does not name it.
func FuzzRaftRPC(f *testing.F) {
	f.Add([]byte{0})
	f.Add([]byte{0, 0x81, 0xa4, 'T', 'e', 'r', 'm', 7})
	f.Add([]byte{1, 0x82, 0xa2, 'I', 'D', 0xc4, 1, '2', 0xa4, 'T', 'e', 'r', 'm', 7})
	f.Add([]byte{2, 0x82, 0xa2, 'I', 'D', 0xc4, 1, '2', 0xa4, 'S', 'i', 'z', 'e', 3, 1, 2, 3})
	f.Add([]byte{4, 0xdf, 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{0, 0x81, 0xa7, 'E', 'n', 't', 'r', 'i', 'e', 's', 0xdd, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, raw []byte) {
		layer := oneConn{make(chan net.Conn), make(chan struct{})}
		tran := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{Stream: layer, Logger: hclog.NewNullLogger(), MaxPool: 1})
		defer func() { _ = tran.Close() }()
		defer close(layer.done)
		ours, theirs := net.Pipe()
		layer.conns <- theirs
		over := make(chan struct{})
		go func() { // what it is answered
			defer close(over)
			_, _ = io.Copy(io.Discard, ours)
		}()
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			_, _ = ours.Write(raw)
			_ = ours.Close()
		}()
		for {
			select {
			case rpc := <-tran.Consumer():
				m, ok := rpc.Command.(raft.WithRPCHeader)
				if err := spokenBy(2, rpc); (err == nil) != (ok && string(m.GetRPCHeader().ID) == "2") {
					t.Errorf("%+v: %v", rpc.Command, err)
				}
				rpc.Respond(nil, errors.New("no"))
			case <-over:
				<-sent
				return
			}
		}
	})
}
