package explore

import (
	"errors"
	"math"
	"reflect"
	"time"

	"github.com/aiondb/aiondb-ha/fencing"
	"github.com/aiondb/aiondb-ha/protocol"
)

// The types of this file are what a state of the model keeps of the machines
// of package fencing. Each operation builds the real machine in that state,
// lets it act, and reads the state off again.

// guard is a fencing.Guard between two operations.
type guard struct {
	open     protocol.Epoch // 0: none
	closed   protocol.Epoch // for good, up to this one
	deadline time.Duration  // of open, on the node's clock
}

// neverExtended is the deadline of a guard that has just been opened.
const neverExtended time.Duration = math.MinInt64 + 1

func (g guard) real(now *time.Duration) *fencing.Guard {
	real := fencing.NewGuard(func() time.Duration { return *now })
	real.CloseBelow(g.closed+1, nil)
	if g.open != 0 {
		if err := real.Open(g.open); err != nil {
			panic(err)
		}
		if g.deadline != neverExtended {
			real.Extend(g.open, g.deadline)
		}
	}
	return real
}

func (g guard) after(act func(*fencing.Guard)) guard {
	var now time.Duration
	real := g.real(&now)
	act(real)
	out := guard{closed: protocol.Epoch(reflect.ValueOf(real).Elem().FieldByName("closed").Uint())}
	epoch, open := real.Epoch()
	if !open {
		return out
	}
	out.open, out.deadline = epoch, neverExtended
	if epoch == g.open {
		out.deadline = g.deadline
	}
	return out
}

func (g guard) closeBelow(epoch protocol.Epoch) guard {
	if epoch == 0 || epoch-1 <= g.closed && (g.open == 0 || g.open >= epoch) {
		return g
	}
	return g.after(func(real *fencing.Guard) { real.CloseBelow(epoch, nil) })
}

func (g guard) opened(epoch protocol.Epoch) (out guard, err error) {
	out = g.after(func(real *fencing.Guard) { err = real.Open(epoch) })
	return out, err
}

// extended asks the real guard whether the new deadline or the old one holds.
func (g guard) extended(epoch protocol.Epoch, deadline time.Duration) guard {
	if g.open != epoch {
		return g
	}
	now := deadline - 1
	real := g.real(&now)
	real.Extend(epoch, deadline)
	if real.Check(epoch) == nil {
		if now = deadline; deadline == fencing.NoDeadline || real.Check(epoch) != nil {
			g.deadline = deadline
		}
	}
	return g
}

// speaks reports whether Check lets the open epoch speak.
func (g guard) speaks(now time.Duration) bool {
	return g.open != 0 && g.real(&now).Check(g.open) == nil
}

// promise is what fencing.Floor keeps on disk.
type promise struct {
	epoch protocol.Epoch
	to    protocol.NodeID
}

var errStale = errors.New("stale epoch")

// raised is the rule of fencing.Floor.Promise, without the disk.
// TestFloorRule holds it against the real one.
func (p promise) raised(epoch protocol.Epoch, to protocol.NodeID) (promise, error) {
	if epoch < p.epoch || epoch == p.epoch && to != p.to {
		return p, errStale
	}
	return promise{epoch, to}, nil
}

// help is a fencing.Help.
type help struct {
	epoch, before protocol.Epoch
	last, earlier time.Duration
}

func newHelp(now time.Duration) help { return help{last: now, earlier: now} }

func (h help) real() *fencing.Help {
	if h.epoch == 0 {
		return fencing.NewHelp(h.last)
	}
	real := fencing.NewHelp(h.earlier)
	if h.before != 0 {
		real.Note(h.before, h.earlier)
	}
	real.Note(h.epoch, h.last)
	return real
}

func (h help) noted(epoch protocol.Epoch, now time.Duration) help {
	real := h.real()
	real.Note(epoch, now)
	v := reflect.ValueOf(real).Elem()
	return help{epoch: protocol.Epoch(v.FieldByName("epoch").Uint()), before: protocol.Epoch(v.FieldByName("before").Uint()),
		last: time.Duration(v.FieldByName("last").Int()), earlier: time.Duration(v.FieldByName("earlier").Int())}
}

func (h help) age(epoch protocol.Epoch, now time.Duration) (time.Duration, protocol.Epoch) {
	return h.real().Age(epoch, now)
}

// stamps is a fencing.Stamps of one epoch, that in which the node leads.
type stamps [nodes]time.Duration

const noStamp time.Duration = math.MinInt64

var noStamps = stamps{noStamp, noStamp, noStamp}

func (s stamps) deadline(local protocol.NodeID, epoch protocol.Epoch, d, now time.Duration, voters []protocol.NodeID) (time.Duration, bool) {
	real := fencing.Stamps{Local: local}
	for i, sent := range s {
		if sent != noStamp {
			real.Note(epoch, protocol.NodeID(i+1), sent)
		}
	}
	return real.Deadline(epoch, d, now, voters)
}
