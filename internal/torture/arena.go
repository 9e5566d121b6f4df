package torture

import (
	"errors"
	"time"

	"github.com/aiondb/aiondb-ha/protocol"
)

// arena is what the machine lets us do to nodes beyond signals: links to cut
// and disks to fill. Its methods may be called from any goroutine.
type arena interface {
	// Network and Disk say in a few words what is used, or why nothing is.
	Network() string
	Disk() string
	CanCut() bool
	CanSlow() bool
	CanFill() bool
	// Host is where a node listens; "" for loopback.
	Host(id protocol.NodeID) string
	// Around starts a process of a node where the node belongs. It keeps to
	// the calling thread.
	Around(id protocol.NodeID, start func() error) error
	// Cut loses what node from sends to node to, until Mend. NoNode stands for
	// the clients.
	Cut(from, to protocol.NodeID) error
	Mend(from, to protocol.NodeID) error
	// Slow delays what a node sends, and loses some of it, until Fast.
	Slow(id protocol.NodeID, delay, jitter time.Duration, lossPercent float64) error
	Fast(id protocol.NodeID) error
	// OwnDisk puts the directory dir, which is empty, on a disk of its own, and
	// says whether it has done so.
	OwnDisk(dir string) (bool, error)
	// Fill leaves no byte on the disk of dir, until Free.
	Fill(dir string) error
	Free(dir string) error
	// Leave turns dir into an ordinary directory again, with its contents if
	// keep is set.
	Leave(dir string, keep bool) error
	Close() error
}

// errCannot is returned for a harm that the arena said it cannot do.
var errCannot = errors.New("this machine does not let us do that")

// plain is the arena of a machine that offers nothing: signals are all there is.
type plain struct{ why string }

func (p plain) Network() string                                                 { return "none: " + p.why }
func (p plain) Disk() string                                                    { return "none to fill: " + p.why }
func (plain) CanCut() bool                                                      { return false }
func (plain) CanSlow() bool                                                     { return false }
func (plain) CanFill() bool                                                     { return false }
func (plain) Host(protocol.NodeID) string                                       { return "127.0.0.1" }
func (plain) Around(_ protocol.NodeID, start func() error) error                { return start() }
func (plain) Cut(_, _ protocol.NodeID) error                                    { return errCannot }
func (plain) Mend(_, _ protocol.NodeID) error                                   { return errCannot }
func (plain) Slow(protocol.NodeID, time.Duration, time.Duration, float64) error { return errCannot }
func (plain) Fast(protocol.NodeID) error                                        { return errCannot }
func (plain) OwnDisk(string) (bool, error)                                      { return false, nil }
func (plain) Fill(string) error                                                 { return errCannot }
func (plain) Free(string) error                                                 { return errCannot }
func (plain) Leave(string, bool) error                                          { return nil }
func (plain) Close() error                                                      { return nil }
