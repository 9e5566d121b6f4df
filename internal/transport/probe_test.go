package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
)

func TestCheckPeers(t *testing.T) {
	noLeaks(t)
	id := identity(t, "right")
	self, friend := open(t, id, nil), open(t, id, nil)
	friend.setNode(2)
	stranger := open(t, identity(t, "wrong"), nil)
	half := open(t, identity(t, "right-too"), nil) // we take its secret, it does not take ours
	probing, err := Listen("127.0.0.1:0", identity(t, "right", "right-too"), hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = probing.Close() }()
	hole, err := net.Listen("tcp", "127.0.0.1:0") // accepts in the kernel, never answers
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = hole.Close() }()
	gone := open(t, id, nil)
	_ = gone.Close()

	addr := func(m *Mux) string { return m.Addr().String() }
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	r := CheckPeers(ctx, probing, []string{addr(friend), addr(stranger), addr(half), hole.Addr().String(), addr(gone), addr(probing), addr(self)})
	if got := fmt.Sprint(r.Accepted); got != fmt.Sprint([]string{addr(friend), addr(self)}) {
		t.Errorf("accepted %v, errors %v", got, r.Errors)
	}
	if got := fmt.Sprint(r.Rejected); got != fmt.Sprint([]string{addr(stranger), addr(half)}) {
		t.Errorf("rejected %v, errors %v", got, r.Errors)
	}
	if got := fmt.Sprint(r.Unreachable); got != fmt.Sprint([]string{hole.Addr().String(), addr(gone)}) {
		t.Errorf("unreachable %v, errors %v", got, r.Errors)
	}
	if got := fmt.Sprint(r.Self); got != fmt.Sprint([]string{addr(probing)}) {
		t.Errorf("self %v", got)
	}
	if r.Nodes[addr(friend)] != 2 || r.Nodes[addr(self)] != 0 {
		t.Errorf("nodes %v", r.Nodes)
	}
	if err := r.Errors[hole.Addr().String()]; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the silent one: %v", err)
	}
	for a, ofPeer := range map[string]bool{addr(stranger): true, addr(half): true} {
		var typed *WrongSecretError
		if !errors.As(r.Errors[a], &typed) || typed.ByPeer != ofPeer || typed.Addr != a {
			t.Errorf("%s: %v", a, r.Errors[a])
		}
	}
}
