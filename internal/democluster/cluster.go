package democluster

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/aiondb/aiondb-ha/protocol"
)

const (
	// DefaultNodes is the size of a cluster when none is given: the smallest
	// that survives the loss of a node.
	DefaultNodes = 3
	// MaxNodes bounds the cluster: every node is a process, and a quorum of
	// more than five helps nobody.
	MaxNodes = 9

	portsPerNode = 3 // cluster (TCP and UDP), HTTP, WAL
	secretBytes  = 32

	// terminateGrace is how long a node may take to hand over and end when it
	// is asked to, before it is killed.
	terminateGrace = 1500 * time.Millisecond

	envPrefix = "AIONDB_HA_"
	tempName  = "aiondb-ha-demo-"
)

// ErrClosed is returned by every method of a Cluster that was shut down.
var ErrClosed = errors.New("the cluster is shut down")

// ErrDirNotEmpty says that a directory to keep data in has something in it.
var ErrDirNotEmpty = errors.New("directory is not empty: give a new one, or empty it")

// ExitedError says that a node that should run has ended.
type ExitedError struct {
	Node protocol.NodeID
	Log  string // path of its log
	Last string // the last line of that log
	Err  error  // how the process ended; nil for status 0
}

func (e *ExitedError) Error() string {
	how := "ended"
	if e.Err != nil {
		how = e.Err.Error()
	}
	return fmt.Sprintf("node %d: %s: %s (log: %s)", e.Node, how, strings.TrimPrefix(e.Last, "aiondb-ha: "), e.Log)
}

func (e *ExitedError) Unwrap() error { return e.Err }

// Config says what cluster to run. The zero value is three nodes of this very
// binary in a temporary directory.
type Config struct {
	// Nodes is the number of nodes, 1 to MaxNodes; 0 means DefaultNodes. An odd
	// number is the better choice: an even one needs one more for its quorum.
	Nodes int
	// Binary is the program to run; empty means this one.
	Binary string
	// Args are its arguments; nil means "serve".
	Args []string
	// Env is added to the environment of every node, "NAME=value". Of the
	// parent's environment everything but AIONDB_HA_* is passed on.
	Env []string
	// NodeEnv, which may be nil, is asked for what is added for one node, after
	// Env.
	NodeEnv func(Node) []string
	// Dir is where data, logs and the secret live. It is created, must be empty
	// and stays. Empty means a temporary directory, removed by Shutdown.
	Dir string
	// Host names the address a node listens on; nil means loopback for all.
	Host func(id protocol.NodeID) string
	// Around is called for every start of a node, on a thread of its own that
	// no other goroutine runs on, and must call start on that thread; nil calls
	// it directly. It may enter another namespace for the call.
	Around func(id protocol.NodeID, start func() error) error
}

// Validate reports every fault of the configuration at once.
func (c Config) Validate() error {
	var faults []error
	if c.Nodes < 0 || c.Nodes > MaxNodes {
		faults = append(faults, fmt.Errorf("%d nodes: want 1 to %d", c.Nodes, MaxNodes))
	}
	for _, kv := range c.Env {
		if !strings.Contains(kv, "=") {
			faults = append(faults, fmt.Errorf("environment %q: want NAME=value", kv))
		}
	}
	return errors.Join(faults...)
}

// Node says where a node of the cluster is to be found.
type Node struct {
	ID      protocol.NodeID
	Addr    string // of the cluster port: Raft, gossip, messages
	APIAddr string // of HTTP: the API, the data, the dashboard
	WALAddr string // of the replication of the data plane
	DataDir string
	LogPath string
}

// StateDir is where the node keeps its Raft log and its fencing token.
func (n Node) StateDir() string {
	return filepath.Join(n.DataDir, "ha", "node-"+n.ID.String())
}

// Cluster is a number of node processes on this machine. It is safe for
// concurrent use; operations on the same node must not overlap. Whoever made
// one must call Shutdown, which leaves no process behind. Neither does the
// death of this process, by whatever means.
type Cluster struct {
	cfg   Config
	dir   string
	temp  bool
	nodes []Node
	ports *portSet
	fork  *forker
	http  *http.Client

	mu      sync.Mutex
	closed  bool
	running []*process // by ID-1; nil: never started
}

// New prepares a cluster: ports, directories, a fresh secret. It starts nothing.
func New(cfg Config) (*Cluster, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Nodes == 0 {
		cfg.Nodes = DefaultNodes
	}
	if cfg.Args == nil {
		cfg.Args = []string{"serve"}
	}
	if cfg.Binary == "" {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("finding the program to run as a node: %w", err)
		}
		cfg.Binary = self
	}
	dir, temp, err := prepareDir(cfg.Dir)
	if err != nil {
		return nil, err
	}
	c := &Cluster{
		cfg: cfg, dir: dir, temp: temp,
		running: make([]*process, cfg.Nodes),
		http:    &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}},
	}
	if err := c.prepare(); err != nil {
		c.removeTemp()
		return nil, err
	}
	c.fork = newForker()
	return c, nil
}

// prepareDir makes the directory of the cluster. An existing one must be empty.
func prepareDir(dir string) (path string, temp bool, err error) {
	if dir == "" {
		path, err = os.MkdirTemp("", tempName)
		return path, true, err
	}
	if path, err = filepath.Abs(dir); err != nil {
		return "", false, err
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return "", false, fmt.Errorf("making the directory to keep: %w", err)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", false, fmt.Errorf("opening the directory to keep: %w", err)
	}
	defer f.Close()
	switch _, err := f.Readdirnames(1); {
	case err == nil:
		return "", false, fmt.Errorf("%s: %w", path, ErrDirNotEmpty)
	case !errors.Is(err, io.EOF):
		return "", false, fmt.Errorf("reading the directory to keep: %w", err)
	}
	return path, false, nil
}

// prepare chooses the ports and writes the secret.
func (c *Cluster) prepare() error {
	ports, err := choosePorts(c.cfg.Nodes * portsPerNode)
	if err != nil {
		return err
	}
	c.ports = ports
	for i := range c.cfg.Nodes {
		id := protocol.NodeID(i + 1)
		host := loopback
		if c.cfg.Host != nil {
			host = c.cfg.Host(id)
		}
		addr := func(i int) string { return net.JoinHostPort(host, strconv.Itoa(ports.ports[i])) }
		c.nodes = append(c.nodes, Node{
			ID:      id,
			Addr:    addr(i * portsPerNode),
			APIAddr: addr(i*portsPerNode + 1),
			WALAddr: addr(i*portsPerNode + 2),
			DataDir: filepath.Join(c.dir, "node-"+id.String()),
			LogPath: filepath.Join(c.dir, "node-"+id.String()+".log"),
		})
	}
	var secret [secretBytes]byte
	_, _ = rand.Read(secret[:]) // never fails: see crypto/rand
	line := hex.EncodeToString(secret[:]) + "\n"
	if err := os.WriteFile(c.SecretPath(), []byte(line), 0o600); err != nil {
		return fmt.Errorf("writing the cluster secret: %w", err)
	}
	return nil
}

// Dir is the directory of the cluster.
func (c *Cluster) Dir() string { return c.dir }

// SecretPath is the file that holds the cluster's secret.
func (c *Cluster) SecretPath() string { return filepath.Join(c.dir, "secret") }

// Nodes lists the nodes by ID. The caller must not change the answer.
func (c *Cluster) Nodes() []Node { return c.nodes }

// Node returns the node with that ID, which must exist.
func (c *Cluster) Node(id protocol.NodeID) Node { return c.nodes[id-1] }

// NodesSetting is the value of AIONDB_HA_CLUSTER_NODES.
func (c *Cluster) NodesSetting() string {
	var addrs []string
	for _, n := range c.nodes {
		addrs = append(addrs, n.Addr)
	}
	return strings.Join(addrs, ",")
}

// Environ is the whole environment of a node, for those who want to run one
// that differs in a setting: later entries win.
func (c *Cluster) Environ(id protocol.NodeID) []string {
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, envPrefix) {
			env = append(env, kv)
		}
	}
	n := c.Node(id)
	_, port, _ := net.SplitHostPort(n.Addr)
	env = append(env,
		"AIONDB_HA_ENABLED=true",
		"AIONDB_HA_NODE_ID="+id.String(),
		"AIONDB_HA_PORT="+port,
		"AIONDB_HA_CLUSTER_NODES="+c.NodesSetting(),
		"AIONDB_HA_AUTH_TOKEN_FILE="+c.SecretPath(),
		"AIONDB_HA_DATA_DIR="+n.DataDir,
		"AIONDB_HA_API_ADDR="+n.APIAddr,
		"AIONDB_HA_DATA_ADDR="+n.WALAddr,
		"AIONDB_HA_EXIT_WITH_STDIN=1",
	)
	env = append(env, c.cfg.Env...)
	if c.cfg.NodeEnv != nil {
		env = append(env, c.cfg.NodeEnv(n)...)
	}
	return env
}

// Start starts a node that does not run. It does not wait for it to serve.
func (c *Cluster) Start(id protocol.NodeID) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	if p := c.running[id-1]; p != nil && p.running() {
		return fmt.Errorf("node %d runs already (pid %d)", id, p.pid())
	}
	fork := c.fork.do
	if around := c.cfg.Around; around != nil {
		fork = func(start func() error) error { return c.fork.do(func() error { return around(id, start) }) }
	}
	p, err := startProcess(fork, c.cfg.Binary, c.cfg.Args, c.Environ(id), c.Node(id).LogPath)
	if err != nil {
		return fmt.Errorf("starting node %d: %w", id, err)
	}
	c.running[id-1] = p
	return nil
}

// StartAll starts every node.
func (c *Cluster) StartAll() error {
	for _, n := range c.nodes {
		if err := c.Start(n.ID); err != nil {
			return err
		}
	}
	return nil
}

// process returns the present run of a node, or an error if there is none.
func (c *Cluster) process(id protocol.NodeID) (*process, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	p := c.running[id-1]
	if p == nil || !p.running() {
		return nil, fmt.Errorf("node %d does not run", id)
	}
	return p, nil
}

// PID returns the process ID of a node's present or last run; 0 if it never ran.
func (c *Cluster) PID(id protocol.NodeID) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.running[id-1]; p != nil {
		return p.pid()
	}
	return 0
}

// Running reports whether the node's process exists, paused or not.
func (c *Cluster) Running(id protocol.NodeID) bool {
	_, err := c.process(id)
	return err == nil
}

// Exited reports a node that was started, was not asked to end by this
// Cluster, and has ended; nil if there is none.
func (c *Cluster) Exited() *ExitedError {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	for i, p := range c.running {
		if p != nil && !p.running() && !p.asked.Load() {
			n := c.nodes[i]
			return &ExitedError{Node: n.ID, Log: n.LogPath, Last: lastLine(n.LogPath), Err: p.err}
		}
	}
	return nil
}

// Excuse takes note that a node that has ended was meant to: Exited does not
// report it.
func (c *Cluster) Excuse(id protocol.NodeID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.running[id-1]; p != nil {
		p.asked.Store(true)
	}
}

// Kill is kill -9: the node gets no chance to do anything more. It returns
// when the process is gone.
func (c *Cluster) Kill(id protocol.NodeID) error {
	p, err := c.process(id)
	if err != nil {
		return err
	}
	return p.kill()
}

// Pause stops the node in its tracks (SIGSTOP) until Resume.
func (c *Cluster) Pause(id protocol.NodeID) error { return c.send(id, syscall.SIGSTOP) }

// Resume lets a paused node go on.
func (c *Cluster) Resume(id protocol.NodeID) error { return c.send(id, syscall.SIGCONT) }

func (c *Cluster) send(id protocol.NodeID, sig syscall.Signal) error {
	p, err := c.process(id)
	if err != nil {
		return err
	}
	return p.signal(sig)
}

// Terminate asks the node to end (SIGTERM) and reports whether it did so by
// itself, with status 0, within grace; otherwise it was killed.
func (c *Cluster) Terminate(id protocol.NodeID, grace time.Duration) (clean bool, err error) {
	p, err := c.process(id)
	if err != nil {
		return false, err
	}
	return p.terminate(grace), nil
}

// WaitExit waits until the node's process has ended, and returns how: nil for
// status 0.
func (c *Cluster) WaitExit(ctx context.Context, id protocol.NodeID) error {
	c.mu.Lock()
	p := c.running[id-1]
	c.mu.Unlock()
	if p == nil {
		return fmt.Errorf("node %d never ran", id)
	}
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return fmt.Errorf("waiting for node %d to end: %w", id, context.Cause(ctx))
	}
}

// Shutdown ends every node and removes the directory if it is a temporary one
// and keep is false. Nodes whose directory stays are asked to end, so that they
// may leave it in order; the others are killed, which takes no time. When it
// returns no process is left. It may be called again and does nothing then.
func (c *Cluster) Shutdown(keep bool) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	c.closed = true
	running := c.running
	c.mu.Unlock()

	var ends sync.WaitGroup
	for _, p := range running {
		switch {
		case p == nil || !p.running():
		case c.temp && !keep:
			ends.Go(func() { _ = p.kill() })
		default:
			ends.Go(func() { p.terminate(terminateGrace) })
		}
	}
	ends.Wait()
	for _, p := range running {
		if p != nil {
			<-p.done
		}
	}
	c.fork.close()
	c.http.CloseIdleConnections()
	_ = c.ports.Close()
	if !keep {
		c.removeTemp()
	}
}

func (c *Cluster) removeTemp() {
	if c.temp {
		_ = os.RemoveAll(c.dir)
	}
}

// lastLine returns the last line of a file that is not empty, or a word why not.
func lastLine(path string) string {
	const tail = 4096
	f, err := os.Open(path)
	if err != nil {
		return "no log: " + err.Error()
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > tail {
		_, _ = f.Seek(-tail, io.SeekEnd)
	}
	raw, _ := io.ReadAll(io.LimitReader(f, tail))
	text := strings.TrimSpace(string(raw))
	if text == "" {
		return "it said nothing"
	}
	return strings.TrimSpace(text[strings.LastIndexByte(text, '\n')+1:])
}
