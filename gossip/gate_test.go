package gossip_test

import (
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/aiondb/aiondb-ha/gossip"
)

// slowTransport takes its time for the question that memberlist asks before it
// enters the local node into its list, and notes whether anything could come
// in by then.
type slowTransport struct {
	*memTransport
	listened, early atomic.Bool
}

func (t *slowTransport) FinalAdvertiseAddr(ip string, port int) (net.IP, int, error) {
	time.Sleep(time.Second)
	t.early.Store(t.early.Load() || t.listened.Load())
	return t.memTransport.FinalAdvertiseAddr(ip, port)
}

func (t *slowTransport) PacketCh() <-chan *memberlist.Packet {
	t.listened.Store(true)
	return t.memTransport.PacketCh()
}

func (t *slowTransport) StreamCh() <-chan net.Conn {
	t.listened.Store(true)
	return t.memTransport.StreamCh()
}

// Nothing comes in before the local node is in memberlist's list.
func TestNothingComesInTooEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := newTestNet(t)
		first := start(t, net, 1, addrOf(1), peersUpTo(2), nil)
		var slow *slowTransport
		second := start(t, net, 2, addrOf(2), peersUpTo(2), func(c *gossip.Config) {
			slow = &slowTransport{memTransport: c.Transport.(*memTransport)}
			c.Transport = slow
		})
		eventually(t, 5*time.Second, "both see both", whole([]*station{first, second}, "1 2"))
		if slow.early.Load() || !slow.listened.Load() {
			t.Errorf("listened before the node knew itself: %v; listened: %v", slow.early.Load(), slow.listened.Load())
		}
	})
}
