package sim

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
)

// errDead is what everything returns in a process that has crashed.
var errDead = errors.New("the process is dead")

// gate is where the goroutines of a process stop while it is paused. They come
// by at every message, every write to the disk, every line of a log, every call
// of the database and every look of the driver at its lease: between two of
// those a goroutine runs on, as the last instructions before a SIGSTOP do.
// Timers run on, as they do for a process that is stopped: they are due when it
// wakes.
type gate struct {
	shut atomic.Pointer[chan struct{}] // closed when the pause ends; nil: there is none
	dead chan struct{}                 // closed by the crash
}

func newGate() *gate { return &gate{dead: make(chan struct{})} }

// pass waits while the process is paused. It returns errDead in a dead one.
func (g *gate) pass() error {
	for {
		select {
		case <-g.dead:
			return errDead
		default:
		}
		shut := g.shut.Load()
		if shut == nil {
			return nil
		}
		select {
		case <-*shut:
		case <-g.dead:
			return errDead
		}
	}
}

// pause shuts the gate. It is false if it is shut already.
func (g *gate) pause() bool {
	shut := make(chan struct{})
	return g.shut.CompareAndSwap(nil, &shut)
}

func (g *gate) resume() {
	if shut := g.shut.Swap(nil); shut != nil {
		close(*shut)
	}
}

func (g *gate) paused() bool { return g.shut.Load() != nil }

func (g *gate) isDead() bool {
	select {
	case <-g.dead:
		return true
	default:
		return false
	}
}

// sleep lets d pass, less if the process dies, and then passes.
func (g *gate) sleep(d time.Duration) error {
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-g.dead:
			return errDead
		}
	}
	return g.pass()
}

// gatedLog is a logger whose lines stop a paused process: Raft and the driver
// write one before most of what they decide.
type gatedLog struct {
	hclog.Logger // says nothing
	gate         *gate
	tell         func(line string, args []any) // nil: nobody listens
}

func (l *gatedLog) line(msg string, args []any) {
	_ = l.gate.pass()
	if l.tell != nil {
		l.tell(msg, args)
	}
}

func (l *gatedLog) Trace(msg string, args ...any)              { l.line(msg, args) }
func (l *gatedLog) Debug(msg string, args ...any)              { l.line(msg, args) }
func (l *gatedLog) Info(msg string, args ...any)               { l.line(msg, args) }
func (l *gatedLog) Warn(msg string, args ...any)               { l.line(msg, args) }
func (l *gatedLog) Error(msg string, args ...any)              { l.line(msg, args) }
func (l *gatedLog) Log(_ hclog.Level, msg string, args ...any) { l.line(msg, args) }
func (l *gatedLog) Named(string) hclog.Logger                  { return l }
func (l *gatedLog) ResetNamed(string) hclog.Logger             { return l }
func (l *gatedLog) With(...any) hclog.Logger                   { return l }
