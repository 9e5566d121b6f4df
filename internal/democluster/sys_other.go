//go:build unix && !linux

package democluster

import (
	"io"
	"syscall"
)

// reservePort does nothing where the kernel offers no name that goes away with
// its holder: the random start of the search has to do.
func reservePort(int) (io.Closer, error) { return nothingHeld{}, nil }

// childAttr puts a child in a process group of its own. There is no signal on
// the parent's death here: the child's standard input, which ends then, has to do.
func childAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

type nothingHeld struct{}

func (nothingHeld) Close() error { return nil }
