package torture

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/aiondb/aiondb-ha/protocol"
)

// The network: a bridge in the name space of this process, and for each node a
// name space with one link to that bridge.
//
//	this process, the clients      node 1           node 2
//	      br0 .254                 eth0 .1          eth0 .2
//	       │  └──────── v1 ─────────┘                │
//	       └─────────── v2 ──────────────────────────┘
//
// The addresses are loopback ones, which the kernel is told to route like any
// other: a node's API asks for no password on loopback only.
//
// Nothing of that has a name outside: it is gone with the processes in it,
// whatever they die of. A way is cut by telling the sender a link address for
// the receiver that nobody has: its packets leave and arrive nowhere, as they
// would behind a switch that failed.

const (
	subnet  = "127.77.0."
	hubHost = subnet + "254"
	// nowhere is a link address that nobody has.
	nowhere = "02:00:00:00:00:fe"
	// diskSize is the size of a disk that can be filled, bytes.
	diskSize = 256 << 20
	// fillerName is the file that fills it.
	fillerName = "filler"
	// setupTimeout bounds each command that sets the network up.
	setupTimeout = 10 * time.Second
)

// netArena is an arena of name spaces. Confine must have put this process into
// name spaces of its own.
type netArena struct {
	ip, tc string // programs; tc may be ""
	hub    *os.File
	spaces []*os.File // by ID-1
	netem  bool

	mu sync.Mutex // one change of the network at a time
}

func newArena(nodes int) arena {
	if os.Getenv(confinedEnv) == "" {
		return plain{why: "not in name spaces of its own"}
	}
	if why := os.Getenv(confinedEnv); why != confined {
		return plain{why: why}
	}
	a, err := newNetArena(nodes)
	if err != nil {
		return plain{why: err.Error()}
	}
	return a
}

// tool finds a program of the system, also where only root looks.
func tool(name string) string {
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/local/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path
		}
	}
	return ""
}

func newNetArena(nodes int) (_ *netArena, err error) {
	a := &netArena{ip: tool("ip"), tc: tool("tc")}
	if a.ip == "" {
		return nil, errors.New("there is no program ip (package iproute2)")
	}
	defer func() {
		if err != nil {
			_ = a.Close()
		}
	}()
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("keeping mounts to ourselves: %w", err)
	}
	if a.hub, err = os.Open("/proc/self/ns/net"); err != nil {
		return nil, err
	}
	if err := a.join(a.hub, "br0", hubHost, "link add br0 type bridge"); err != nil {
		return nil, err
	}
	for i := range nodes {
		space, err := newSpace(a.hub)
		if err != nil {
			return nil, fmt.Errorf("making a network name space: %w", err)
		}
		a.spaces = append(a.spaces, space)
		link := fmt.Sprintf("v%d", i+1)
		// The hub by its file: by process ID it would be where the first thread
		// happens to be.
		make := fmt.Sprintf("link add eth0 type veth peer name %s netns /proc/self/fd/3", link)
		if err := a.join(space, "eth0", a.Host(protocol.NodeID(i+1)), make); err != nil {
			return nil, err
		}
		if err := a.run(a.hub, a.ip, "link set "+link+" master br0 up"); err != nil {
			return nil, err
		}
	}
	if a.tc != "" && nodes > 0 {
		a.netem = a.Slow(1, time.Millisecond, 0, 0) == nil && a.Fast(1) == nil
	}
	return a, nil
}

// join makes a device in a name space and gives it an address.
func (a *netArena) join(space *os.File, device, host, make string) error {
	// lo gets one address, not all of 127/8, before it comes up and helps itself.
	for _, args := range []string{"addr add 127.0.0.1/32 dev lo", "link set lo up", make} {
		if err := a.run(space, a.ip, args); err != nil {
			return err
		}
	}
	err := a.within(space, func() error {
		return os.WriteFile("/proc/sys/net/ipv4/conf/"+device+"/route_localnet", []byte("1"), 0)
	})
	if err != nil {
		return fmt.Errorf("routing loopback addresses: %w", err)
	}
	for _, args := range []string{"addr add " + host + "/24 dev " + device, "link set " + device + " up"} {
		if err := a.run(space, a.ip, args); err != nil {
			return err
		}
	}
	return nil
}

// newSpace makes a network name space that lives as long as the file is open,
// or a process is in it.
func newSpace(hub *os.File) (space *os.File, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			runtime.UnlockOSThread()
			return
		}
		space, err = os.Open("/proc/thread-self/ns/net")
		if back := unix.Setns(int(hub.Fd()), unix.CLONE_NEWNET); back == nil {
			runtime.UnlockOSThread() // else the thread ends with this goroutine
		}
	}()
	<-done
	return space, err
}

// within calls f on a thread in a name space. f must start no goroutine that it
// expects to be there too.
func (a *netArena) within(space *os.File, f func() error) (err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err = unix.Setns(int(space.Fd()), unix.CLONE_NEWNET); err == nil {
			err = f()
		}
		if back := unix.Setns(int(a.hub.Fd()), unix.CLONE_NEWNET); back == nil {
			runtime.UnlockOSThread() // else the thread ends with this goroutine
		}
	}()
	<-done
	return err
}

// run runs a program with arguments in a name space.
func (a *netArena) run(space *os.File, program, args string) error {
	return a.within(space, func() error {
		var said strings.Builder
		cmd := exec.Command(program, strings.Fields(args)...)
		cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = &said, &said, []*os.File{a.hub}
		if err := cmd.Start(); err != nil {
			return err
		}
		stuck := time.AfterFunc(setupTimeout, func() { _ = cmd.Process.Kill() })
		defer stuck.Stop()
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("%s %s: %w: %s", filepath.Base(program), args, err, strings.TrimSpace(said.String()))
		}
		return nil
	})
}

func (a *netArena) Network() string {
	how := "network name spaces, joined by a bridge"
	if !a.netem {
		how += " (this kernel cannot delay packets)"
	}
	return how
}

func (a *netArena) Disk() string {
	return fmt.Sprintf("a tmpfs of %d MiB under the last node, the machine's own disk under the others", diskSize>>20)
}
func (a *netArena) CanCut() bool  { return true }
func (a *netArena) CanSlow() bool { return a.netem }
func (a *netArena) CanFill() bool { return true }

// Host is the address of a node; NoNode is the clients.
func (a *netArena) Host(id protocol.NodeID) string {
	if id == protocol.NoNode {
		return hubHost
	}
	return subnet + id.String()
}

// Around keeps to the calling thread, which must be one that nothing else uses.
func (a *netArena) Around(id protocol.NodeID, start func() error) error {
	if err := unix.Setns(int(a.spaces[id-1].Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("entering the name space of node %d: %w", id, err)
	}
	err := start()
	if back := unix.Setns(int(a.hub.Fd()), unix.CLONE_NEWNET); back != nil {
		return errors.Join(err, fmt.Errorf("leaving the name space of node %d: %w", id, back))
	}
	return err
}

// side returns where the sender's table is, and its device.
func (a *netArena) side(from protocol.NodeID) (*os.File, string) {
	if from == protocol.NoNode {
		return a.hub, "br0"
	}
	return a.spaces[from-1], "eth0"
}

func (a *netArena) Cut(from, to protocol.NodeID) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	space, device := a.side(from)
	return a.run(space, a.ip, fmt.Sprintf("neigh replace %s lladdr %s nud permanent dev %s", a.Host(to), nowhere, device))
}

func (a *netArena) Mend(from, to protocol.NodeID) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	space, device := a.side(from)
	return a.run(space, a.ip, fmt.Sprintf("neigh del %s dev %s", a.Host(to), device))
}

func (a *netArena) Slow(id protocol.NodeID, delay, jitter time.Duration, lossPercent float64) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.run(a.spaces[id-1], a.tc, fmt.Sprintf("qdisc replace dev eth0 root netem delay %dus %dus loss %g%%",
		delay.Microseconds(), jitter.Microseconds(), lossPercent))
}

func (a *netArena) Fast(id protocol.NodeID) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.run(a.spaces[id-1], a.tc, "qdisc del dev eth0 root")
}

func (a *netArena) OwnDisk(dir string) (bool, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return false, err
	}
	err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NODEV|unix.MS_NOSUID, fmt.Sprintf("size=%d,mode=0700", diskSize))
	if err != nil {
		return false, fmt.Errorf("mounting a tmpfs at %s: %w", dir, err)
	}
	return true, nil
}

func (a *netArena) Fill(dir string) error {
	f, err := os.OpenFile(filepath.Join(dir, fillerName), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	// Big pieces first, then what is left in small ones.
	for _, size := range []int{1 << 20, 4 << 10, 64, 1} {
		piece := make([]byte, size)
		for written := 0; written <= diskSize; {
			n, err := f.Write(piece)
			written += n
			if errors.Is(err, syscall.ENOSPC) {
				break
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (a *netArena) Free(dir string) error { return os.Remove(filepath.Join(dir, fillerName)) }

func (a *netArena) Leave(dir string, keep bool) error {
	saved := dir + ".saved"
	if keep {
		_ = os.Remove(filepath.Join(dir, fillerName))
		if err := os.CopyFS(saved, os.DirFS(dir)); err != nil {
			return fmt.Errorf("saving what is on the tmpfs: %w", err)
		}
	}
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmounting %s: %w", dir, err)
	}
	if !keep {
		return nil
	}
	if err := os.Remove(dir); err != nil {
		return err
	}
	return os.Rename(saved, dir)
}

func (a *netArena) Close() error {
	var errs []error
	if a.hub != nil {
		errs = append(errs, a.hub.Close())
	}
	for _, space := range a.spaces {
		errs = append(errs, space.Close())
	}
	return errors.Join(errs...)
}

const (
	// confinedEnv is set for the copy of this process that Confine starts. It
	// begins with the prefix of the settings, so that nodes do not get it.
	confinedEnv = "AIONDB_HA_TORTURE_CONFINED"
	confined    = "yes"
)

// Confine runs this program again, with the same arguments, in name spaces of
// its own, so that it can cut networks and mount disks that nobody else sees
// and that are gone when it is. done is true if that was done: code is the exit
// status then, killed the signal that ended it, if one did, and all there is
// left to do is to exit. It is false in the copy, and where the machine does not allow it; the torture does without
// then, and says so. Signals that ask to end are passed on.
func Confine(signals <-chan os.Signal) (code int, killed string, done bool) {
	if os.Getenv(confinedEnv) != "" {
		return 0, "", false
	}
	self, err := os.Executable()
	if err != nil {
		return 0, "", false
	}
	runtime.LockOSThread() // the parent-death signal follows the thread that forked
	defer runtime.UnlockOSThread()
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), confinedEnv+"="+confined)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	attr := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 { // root in a name space of users of its own
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	cmd.SysProcAttr = attr
	if err := cmd.Start(); err != nil {
		_ = os.Setenv(confinedEnv, fmt.Sprintf("the system refuses name spaces (%v)", err))
		return 0, "", false
	}
	ended := make(chan struct{})
	var relay sync.WaitGroup
	relay.Go(func() {
		for {
			select {
			case sig := <-signals:
				_ = cmd.Process.Signal(sig)
			case <-ended:
				return
			}
		}
	})
	_ = cmd.Wait()
	close(ended)
	relay.Wait()
	if code = cmd.ProcessState.ExitCode(); code < 0 {
		code, killed = 1, cmd.ProcessState.String()
	}
	return code, killed, true
}

// burnAttr has the kernel kill a child when the thread that forked it dies.
func burnAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
