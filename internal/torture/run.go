package torture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/aiondb/aiondb-ha/internal/democluster"
	"github.com/aiondb/aiondb-ha/internal/term"
	"github.com/aiondb/aiondb-ha/protocol"
)

const (
	// MinNodes is the smallest cluster with something to lose.
	MinNodes = 3
	// MaxNodes is the largest.
	MaxNodes = 7
	// MaxDuration bounds a run: the data plane is never compacted.
	MaxDuration = 6 * time.Hour

	// startTimeout bounds the start of the cluster and its first primary.
	startTimeout = 60 * time.Second
	// readBackTimeout bounds reading everything at the end.
	readBackTimeout = 3 * time.Minute
	// checkLimit bounds the check of the history of one key.
	checkLimit = 20 * time.Second
	// verifyTimeout bounds the verification of one node's log.
	verifyTimeout = time.Minute
	// writePace is how long a writer of unique keys rests between two writes.
	writePace = 8 * time.Millisecond

	// maxBusy bounds the processes that only burn.
	maxBusy = 64

	tempPattern = "aiondb-ha-torture-"
)

// Config says how to torture. Zero values mean what is named.
type Config struct {
	// Duration is how long faults are injected; 0 means a minute.
	Duration time.Duration
	// Nodes is the size of the cluster, MinNodes to MaxNodes; 0 means 3.
	Nodes int
	// Seed decides which faults, when and to whom; 0 means any.
	Seed uint64
	// Faults are those to choose from; empty means all the machine allows.
	Faults []Fault
	// Steps ends the run after so many steps; 0: with its time alone.
	Steps int
	// Target is whom every fault hits that could hit any node; "" leaves it open.
	Target Target
	// Busy is how many processes keep the processor busy beside the run.
	Busy int
	// Keep is a directory for data, logs and records, new or empty; "" keeps
	// nothing unless something is wrong.
	Keep string
	// Report is the file for the picture; "" makes none, but for a directory
	// that is kept.
	Report string
	// Env is added to the environment of the nodes.
	Env []string
	// Binary is the program to run; "" means this one.
	Binary string
	// Version goes into the verdict.
	Version string
	// Out is where the run is told; nil tells nobody. Style colours it; Live
	// shows progress on a line that is rewritten.
	Out   io.Writer
	Style term.Style
	Live  bool
}

// Validate reports every fault of the configuration at once.
func (c Config) Validate() error {
	var errs []error
	if c.Duration < 0 || c.Duration > MaxDuration {
		errs = append(errs, fmt.Errorf("%v: want more than nothing and at most %v", c.Duration, MaxDuration))
	}
	if c.Nodes != 0 && (c.Nodes < MinNodes || c.Nodes > MaxNodes) {
		errs = append(errs, fmt.Errorf("%d nodes: want %d to %d", c.Nodes, MinNodes, MaxNodes))
	}
	for _, f := range c.Faults {
		known := false
		for _, k := range kinds() {
			known = known || k.fault == f
		}
		if !known {
			errs = append(errs, fmt.Errorf("unknown fault %q: there are %s", f, strings.Join(FaultNames(), ", ")))
		}
	}
	if c.Steps < 0 || c.Busy < 0 || c.Busy > maxBusy {
		errs = append(errs, fmt.Errorf("%d steps, %d busy processes: want no negative number and at most %d processes", c.Steps, c.Busy, maxBusy))
	}
	if c.Target != "" && c.Target != OnPrimary && c.Target != OnReplica {
		errs = append(errs, fmt.Errorf("target %q: want %s or %s", c.Target, OnPrimary, OnReplica))
	}
	return errors.Join(errs...)
}

// run is one torture.
type run struct {
	*term.Story
	cfg     Config
	arena   arena
	cluster *democluster.Cluster
	client  *democluster.Client
	load    *Load
	dir     string
	temp    bool
	mark    *os.File // locked while a temporary directory is in use
	disks   []string // directories that are disks of their own
	began   time.Time
	step    Step
	down    map[protocol.NodeID]func() // ends the harm of a node that does not run
	verdict Verdict

	mu         sync.Mutex
	windows    []Window
	done       []Done
	notes      []string
	violations []string
}

// Run tortures a cluster and judges what the clients saw. The error says why
// there is no verdict, or that it is not good; the verdict says the same. When
// ctx ends the faults do, and the verdict is about the time until then. No
// process is left when Run returns.
func Run(ctx context.Context, cfg Config) (Verdict, error) {
	if err := cfg.Validate(); err != nil {
		return Verdict{}, err
	}
	if cfg.Duration == 0 {
		cfg.Duration = time.Minute
	}
	if cfg.Nodes == 0 {
		cfg.Nodes = MinNodes
	}
	for cfg.Seed == 0 {
		cfg.Seed = rand.Uint64() >> 11 // so that JSON readers keep every digit
	}
	if cfg.Out == nil {
		cfg.Out = io.Discard
	}
	r := &run{
		Story: term.NewStory(cfg.Out, cfg.Style, cfg.Live), cfg: cfg, began: time.Now(), down: map[protocol.NodeID]func(){},
		verdict: Verdict{Nodes: cfg.Nodes, Seed: cfg.Seed, Faults: map[Fault]int{}, Failovers: []Change{}, Version: cfg.Version},
	}
	err := r.run(ctx)
	if err != nil {
		r.verdict.Reason = err.Error()
	}
	r.verdict.OK = err == nil
	r.verdict.Notes = r.notes
	r.verdict.DurationMS = inMS(time.Since(r.began))
	r.tell()
	return r.verdict, err
}

func (r *run) now() time.Duration { return r.client.Now() }

// note keeps what went otherwise than planned and is no violation.
func (r *run) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	r.mu.Lock()
	r.notes = append(r.notes, fmt.Sprintf("step %d, %s: %s", r.step.N, r.step.Fault, text))
	r.mu.Unlock()
	r.Line("  %s  %s", r.Yellow("note"), term.Safe(text))
}

// violation keeps what must not be.
func (r *run) violation(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	r.mu.Lock()
	r.violations = append(r.violations, text)
	r.mu.Unlock()
	r.Line("  %s  %s", r.Red("wrong"), term.Safe(text))
}

func (r *run) run(ctx context.Context) (err error) {
	r.arena = newArena(r.cfg.Nodes)
	defer func() { err = errors.Join(err, r.arena.Close()) }()
	if err := r.prepareDir(); err != nil {
		return err
	}
	scheduler, err := r.schedule()
	if err != nil {
		return errors.Join(err, r.leaveDir(false))
	}
	if err := r.makeCluster(); err != nil {
		return errors.Join(err, r.leaveDir(false))
	}
	failure := r.torture(ctx, scheduler)
	r.Waiting(func() string { return "stopping the nodes" })()
	r.cluster.Shutdown(true)
	if r.client != nil { // there is something to judge
		r.inspect()
		failure = errors.Join(failure, r.judge())
	}
	return errors.Join(failure, r.leaveDir(failure != nil))
}

// schedule makes the script's source: the faults asked for that this machine allows.
func (r *run) schedule() (*Scheduler, error) {
	var faults []Fault
	var left []string
	for _, k := range kinds() {
		asked := len(r.cfg.Faults) == 0 && k.weight > 0
		for _, f := range r.cfg.Faults {
			asked = asked || f == k.fault
		}
		possible := k.needs == needsNothing || k.needs == needsNetwork && r.arena.CanCut() ||
			k.needs == needsNetem && r.arena.CanSlow() || k.needs == needsDisk && r.arena.CanFill()
		switch {
		case asked && possible:
			faults = append(faults, k.fault)
		case asked:
			left = append(left, string(k.fault))
		}
	}
	r.verdict.Network, r.verdict.Disk, r.verdict.LeftOut = r.arena.Network(), r.arena.Disk(), left
	s, err := NewScheduler(r.cfg.Seed, r.cfg.Nodes, faults)
	if err != nil {
		return nil, err
	}
	s.Longest, s.Target = max(r.cfg.Duration/4, time.Second), r.cfg.Target
	return s, nil
}

func (r *run) makeCluster() (err error) {
	cfg := democluster.Config{
		Nodes: r.cfg.Nodes, Binary: r.cfg.Binary, Dir: filepath.Join(r.dir, "cluster"), Env: r.cfg.Env,
		Host: r.arena.Host, Around: r.arena.Around,
	}
	if r.cluster, err = democluster.New(cfg); err != nil {
		return err
	}
	last := r.cluster.Nodes()[r.cfg.Nodes-1].DataDir
	own, err := r.arena.OwnDisk(last)
	if err != nil {
		r.cluster.Shutdown(false)
		return err
	}
	if own {
		r.disks = append(r.disks, last)
	}
	return nil
}

// torture starts the cluster, injects faults until the time is over, and reads
// everything back. The violations are kept; an error ends the run.
func (r *run) torture(ctx context.Context, scheduler *Scheduler) error {
	if err := r.start(ctx); err != nil {
		return err
	}
	r.intro()
	rest, err := burn(r.cfg.Busy)
	if err != nil {
		return err
	}
	defer rest()
	r.verdict.from = r.now()
	timed, cancel := context.WithTimeoutCause(ctx, r.cfg.Duration, errTimeIsUp)
	defer cancel()
	err = r.steps(timed, scheduler)
	r.verdict.until = r.now()
	r.verdict.Interrupted = ctx.Err() != nil
	if err == nil {
		err = r.settle("at the end")
	}
	r.load.Close()
	return errors.Join(err, r.client.Close(), r.readBack())
}

// errTimeIsUp ends the steps.
var errTimeIsUp = errors.New("the time is up")

func (r *run) start(ctx context.Context) error {
	defer r.Waiting(func() string { return "starting the nodes" })()
	limited, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := r.cluster.StartAll(); err != nil {
		return err
	}
	primary, err := r.cluster.WaitPrimary(limited, 0)
	if err != nil {
		return err
	}
	compare, err := r.offersCompare(limited, primary.NodeID)
	if err != nil {
		return err
	}
	r.verdict.Compare = compare
	client, err := democluster.NewClient(democluster.ClientConfig{
		Nodes: r.cluster.Nodes(), Pace: writePace, Log: filepath.Join(r.dir, "writes.jsonl")})
	if err != nil {
		return err
	}
	r.client = client
	r.load = startLoad(r.cluster.Nodes(), client.Now, compare)
	_, err = r.waitWhole(limited)
	return err
}

// offersCompare asks whether writes of KV may depend on a revision.
func (r *run) offersCompare(ctx context.Context, id protocol.NodeID) (bool, error) {
	url := "http://" + r.cluster.Node(id).APIAddr + "/v1/kv/t/compare?" + compareParam + "=1"
	a, _, err := request(ctx, http.DefaultClient, http.MethodPut, url, []byte("x"))
	if err != nil {
		return false, fmt.Errorf("asking whether a write may depend on a revision: %w", err)
	}
	return a.Code == codeDiffers, nil
}

// steps does one step after the other until ctx ends.
func (r *run) steps(ctx context.Context, scheduler *Scheduler) error {
	for n := 0; ctx.Err() == nil && (r.cfg.Steps == 0 || n < r.cfg.Steps); n++ {
		s := scheduler.Next()
		r.step = s
		r.verdict.Script = append(r.verdict.Script, s.String())
		if err := r.oneStep(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) oneStep(ctx context.Context, s Step) error {
	progress := r.Waiting(func() string { return r.progress(s) })
	defer progress()
	hold(ctx, s.Lead)
	if ctx.Err() != nil {
		return nil
	}
	node, other, err := r.choose(ctx, s)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("before step %s: %w", s, err)
	}
	if s.Target == OnAll {
		node = protocol.NoNode
	}
	if s.Fault == FaultDiskFull {
		node = protocol.NodeID(r.cfg.Nodes)
	}
	d := Done{Step: s, Node: node, From: r.client.Mark(string(s.Fault), node)}
	r.verdict.Faults[s.Fault]++
	err = r.inject(ctx, s, node, other)
	d.To = r.now()
	var exited *democluster.ExitedError
	switch {
	case errors.As(err, &exited):
	case err != nil:
		err = fmt.Errorf("step %s: %w", s, err)
	default:
		if err = r.settle(fmt.Sprintf("after step %s", s)); err == nil {
			d.Whole = r.now()
		}
	}
	if err != nil {
		d.Note = err.Error()
	}
	r.mu.Lock()
	r.done = append(r.done, d)
	r.mu.Unlock()
	progress()
	r.tellStep(d)
	return err
}

// settle waits until the cluster is whole, whatever becomes of the context of
// the run: what was started is brought to its end.
func (r *run) settle(when string) error {
	ctx, cancel := context.WithTimeout(context.Background(), wholeTimeout)
	defer cancel()
	for _, n := range r.cluster.Nodes() {
		if r.down[n.ID] != nil && !r.cluster.Running(n.ID) {
			if err := r.restart(n.ID); err != nil {
				return err
			}
		}
	}
	if _, err := r.waitWhole(ctx); err != nil {
		return fmt.Errorf("%s: %w: %w", when, errWhole, err)
	}
	return nil
}

// inspect looks at what the nodes left: their logs, and what they said.
func (r *run) inspect() {
	defer r.Waiting(func() string { return "verifying what is on the disks" })()
	binary := r.cfg.Binary
	if binary == "" {
		binary, _ = os.Executable()
	}
	for _, n := range r.cluster.Nodes() {
		ctx, cancel := context.WithTimeout(context.Background(), verifyTimeout)
		out, err := exec.CommandContext(ctx, binary, "log", "verify", n.StateDir()).CombinedOutput()
		cancel()
		if err != nil {
			r.violation("the Raft log of node %d does not verify: %v: %s", n.ID, err, lastLineOf(string(out)))
		}
		if line := badLine(n.LogPath); line != "" {
			r.violation("node %d said: %s", n.ID, line)
		}
	}
}

func lastLineOf(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndexByte(text, '\n')+1:]
}

// badLine returns the first line of a node's output that tells of a bug.
func badLine(path string) string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return "nothing: " + err.Error()
	}
	for line := range strings.Lines(string(raw)) {
		for _, bad := range []string{"WARNING: DATA RACE", "panic: ", "fatal error: "} {
			if strings.Contains(line, bad) {
				return strings.TrimSpace(line)
			}
		}
	}
	return ""
}

// inMS is d in milliseconds with one decimal.
func inMS(d time.Duration) float64 {
	return math.Round(float64(d)/float64(100*time.Microsecond)) / 10
}
