package democluster

import (
	"fmt"
	"io"
	"net"
	"syscall"
)

// reservePort keeps other clusters of ours off a port while the node that owns
// it is down. The name lives in the kernel's abstract socket space: it is gone
// with the process that holds it, whatever that process dies of.
func reservePort(port int) (io.Closer, error) {
	return net.Listen("unix", fmt.Sprintf("@aiondb-ha-port-%d", port))
}

// childAttr puts a child in a process group of its own (a Ctrl-C at the
// terminal is for the parent alone) and has the kernel kill it when the thread
// that forked it dies: see forker.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
