package torture

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aiondb/aiondb-ha/internal/democluster"
	"github.com/aiondb/aiondb-ha/internal/walplane"
	"github.com/aiondb/aiondb-ha/protocol"
)

// plane is one of the two stores of a cluster that clients talk to.
type plane struct {
	name    string // begins the names of its keys
	path    string // before the key
	kv      bool   // every node answers, and writes have revisions
	compare bool   // a write may depend on a revision
}

func dataPlane() plane { return plane{name: "data", path: "/v1/data/"} }
func kvPlane() plane   { return plane{name: "kv", path: "/v1/kv/", kv: true} }

const (
	// compareParam makes a write of KV depend on the revision of the key.
	compareParam = "if_revision"

	keysAtOnce = 3
	// opsPerKey bounds the history of a register: checking it takes time that
	// grows with its length, so the clients move on to new keys together.
	opsPerKey = 150
	// loadPace is how long a register client rests between two requests.
	loadPace = 20 * time.Millisecond
	// quickWait is how long most requests wait for an answer.
	quickWait = time.Second
	// patientWait is how long one request in patientShare waits: longer than
	// any pause, so that what a node says when it wakes up is heard.
	patientWait  = 30 * time.Second
	patientShare = 8
	// uniqueShare: one KV write in so many goes to a key of its own, to be
	// looked for at the end.
	uniqueShare = 8
	// pinFor is how many requests in a row go to one node.
	pinFor = 25
	// maxOps bounds the record of one client.
	maxOps = 1 << 20
	// maxBody bounds what is read of an answer.
	maxBody = 1 << 20
)

// answer is what the nodes answer to anything here.
type answer struct {
	Value    string          `json:"value"`
	Revision uint64          `json:"revision"`
	Index    uint64          `json:"index"`
	Epoch    protocol.Epoch  `json:"epoch"`
	LSN      protocol.LSN    `json:"lsn"`
	Primary  protocol.NodeID `json:"primary"`
	Code     string          `json:"code"`
	Error    string          `json:"error"`
	status   int
	valid    time.Duration // since the request arrived; 0: without limit
}

// The codes that say that nothing was done.
var nothingDone = []string{"refused", "no_quorum", "not_primary", "not_leader", "bad_request", "too_large", "forbidden", "busy", "closed", "log_full"}

// codeDiffers is the code of a compare that found another revision.
const codeDiffers = "revision_mismatch"

// loader is a client of registers: it reads, writes and compares a few keys
// that all loaders of its plane share, and records every request.
type loader struct {
	id     int
	plane  plane
	nodes  []democluster.Node
	now    func() time.Duration
	count  *atomic.Int64 // requests of the plane, of all loaders
	hint   *atomic.Uint64
	http   *http.Client
	random *rand.Rand
	side   sync.WaitGroup // patient requests under way

	seen map[string]seen // by key: what this client last read

	mu  sync.Mutex
	ops []Op
}

type seen struct {
	value string
	rev   uint64
}

func newLoader(id int, p plane, nodes []democluster.Node, now func() time.Duration, count *atomic.Int64, hint *atomic.Uint64) *loader {
	dialer := &net.Dialer{Timeout: 500 * time.Millisecond}
	return &loader{
		id: id, plane: p, nodes: nodes, now: now, count: count, hint: hint, seen: map[string]seen{},
		random: rand.New(rand.NewPCG(rand.Uint64(), uint64(id))),
		http: &http.Client{Transport: &http.Transport{
			DialContext: dialer.DialContext, MaxIdleConnsPerHost: stalkAtOnce, DisableCompression: true, IdleConnTimeout: patientWait,
		}},
	}
}

// run makes requests until ctx ends, and waits for the answers that are on
// their way then, no longer than they may take.
func (l *loader) run(ctx context.Context) {
	defer l.http.CloseIdleConnections()
	defer l.side.Wait()
	rest := time.NewTicker(loadPace)
	defer rest.Stop()
	at := l.random.IntN(len(l.nodes))
	for n := 0; len(l.record()) < maxOps; n++ {
		if n%pinFor == 0 {
			at = l.random.IntN(len(l.nodes))
		}
		node := l.nodes[at]
		if h := l.hint.Load(); !l.plane.kv && h > 0 && l.random.IntN(4) > 0 {
			node = l.nodes[h-1]
		}
		op := l.choose(n)
		op.Node = node.ID
		if l.random.IntN(patientShare) == 0 {
			l.side.Go(func() { l.do(ctx, node, op, patientWait) })
		} else {
			l.do(ctx, node, op, quickWait)
		}
		select {
		case <-rest.C:
		case <-ctx.Done():
			return
		}
	}
}

// choose makes up the next request.
func (l *loader) choose(n int) Op {
	number := l.count.Add(1)
	op := Op{Client: l.id, Value: fmt.Sprintf("%d.%d", l.id, n)}
	if l.plane.kv && l.random.IntN(uniqueShare) == 0 {
		op.Kind, op.Key = OpPut, uniqueKey(l.id, n)
		return op
	}
	op.Key = l.register(int(number))
	l.mu.Lock()
	last, known := l.seen[op.Key]
	l.mu.Unlock()
	switch pick := l.random.IntN(4); {
	case pick == 0:
		op.Kind = OpPut
	case pick == 1 && l.plane.compare && known:
		op.Kind, op.Old, op.Rev = OpCompare, last.value, last.rev
	case pick == 1 && !l.plane.compare:
		op.Kind = OpPut
	default:
		op.Kind, op.Value = OpGet, ""
	}
	return op
}

// register picks one of the keys in use when so many requests have been made.
func (l *loader) register(number int) string {
	generation := number / (opsPerKey * keysAtOnce)
	return fmt.Sprintf("t/%s-%d", l.plane.name, generation*keysAtOnce+l.random.IntN(keysAtOnce))
}

// uniqueBlock is how many unique keys share a prefix to be listed by.
const uniqueBlock = 100

func uniqueKey(client, n int) string {
	return fmt.Sprintf("%s%02d", uniquePrefix(client, n/uniqueBlock), n%uniqueBlock)
}

// isUnique tells the keys of uniqueKey from registers.
func isUnique(key string) bool { return strings.HasPrefix(key, "t/u") }

func uniquePrefix(client, block int) string { return fmt.Sprintf("t/u%d-%06d.", client, block) }

// do makes one request and records what came of it.
func (l *loader) do(ctx context.Context, node democluster.Node, op Op, wait time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	compared := op.Rev
	op.Start, op.Rev = l.now(), 0
	a, sent, err := l.ask(ctx, node, op, compared, wait)
	op.End = l.now()
	op.Outcome, op.Code = judgeAnswer(a, sent, err, op.Kind)
	if op.Outcome == OK && op.Kind != OpGet && a.valid > 0 && op.End-op.Start > a.valid {
		op.Outcome, op.Code = Unknown, "late" // it says itself that it tells nothing any more; a read it may still tell
	}
	if op.Outcome == OK {
		op.Epoch, op.LSN = a.Epoch, a.LSN
		if l.plane.kv {
			op.Rev = max(a.Revision, a.Index)
			if op.Kind == OpGet {
				op.Rev = a.Revision
			}
		}
		if op.Kind == OpGet {
			op.Seen = a.Value
		}
	}
	if !l.plane.kv && op.Outcome == Refused && a.Primary > 0 && int(a.Primary) <= len(l.nodes) {
		l.hint.Store(uint64(a.Primary))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ops = append(l.ops, op)
	if op.Outcome == OK {
		value := op.Value
		if op.Kind == OpGet {
			value = op.Seen
		}
		l.seen[op.Key] = seen{value, op.Rev}
	}
}

// ask sends op. sent is false when it certainly did not leave.
func (l *loader) ask(ctx context.Context, node democluster.Node, op Op, compared uint64, wait time.Duration) (a answer, sent bool, err error) {
	url := "http://" + node.APIAddr + l.plane.path + op.Key + "?timeout=" + max(wait*8/10, 100*time.Millisecond).String()
	method, body := http.MethodGet, []byte(nil)
	if op.Kind != OpGet {
		method, body = http.MethodPut, []byte(op.Value)
	}
	if op.Kind == OpCompare {
		url += "&" + compareParam + "=" + strconv.FormatUint(compared, 10)
	}
	return request(ctx, l.http, method, url, body)
}

// request makes one HTTP request and reads its answer.
func request(ctx context.Context, client *http.Client, method, url string, body []byte) (a answer, sent bool, err error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return a, false, err
	}
	resp, err := client.Do(req)
	if err != nil {
		var op *net.OpError
		return a, !errors.As(err, &op) || op.Op != "dial", err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return a, true, err
	}
	a.status = resp.StatusCode
	if text := resp.Header.Get(walplane.HeaderValid); text != "" {
		ms, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return a, true, err
		}
		a.valid = max(time.Duration(ms)*time.Millisecond, 1)
	}
	return a, true, json.Unmarshal(raw, &a)
}

// judgeAnswer says what an answer tells of the request's outcome.
func judgeAnswer(a answer, sent bool, err error, kind OpKind) (Outcome, string) {
	switch {
	case err != nil && !sent:
		return Refused, "not sent"
	case err != nil:
		return Unknown, "no answer"
	case a.status == http.StatusOK:
		return OK, ""
	case a.status == http.StatusNotFound && a.Code == "not_found" && kind == OpGet:
		return OK, "" // and the value is empty
	case kind == OpCompare && a.Code == codeDiffers:
		return Differs, a.Code
	case slices.Contains(nothingDone, a.Code):
		return Refused, a.Code
	}
	return Unknown, a.Code
}

// record returns what was recorded so far; it must not be changed.
func (l *loader) record() []Op {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ops
}

const (
	// stalkEvery is how often a stalker asks each node that should not answer.
	stalkEvery = 60 * time.Millisecond
	// stalkAtOnce bounds its questions to one node that wait for an answer.
	stalkAtOnce = 24
)

// stalk reads registers of the data plane from every node, primary or not, over
// connections that stay open, and waits for the answers: a primary that has been
// stopped finds these questions, asked after it was replaced, when it wakes up,
// and must not answer them from what it holds. It returns when ctx has ended and
// nothing is under way any more.
func (l *loader) stalk(ctx context.Context) {
	defer l.http.CloseIdleConnections()
	defer l.side.Wait()
	tick := time.NewTicker(stalkEvery)
	defer tick.Stop()
	slots := make([]chan struct{}, len(l.nodes))
	for i := range slots {
		slots[i] = make(chan struct{}, stalkAtOnce)
	}
	for len(l.record()) < maxOps {
		for i, node := range l.nodes {
			select {
			case slots[i] <- struct{}{}:
			default:
				continue
			}
			op := Op{Client: l.id, Node: node.ID, Kind: OpGet, Key: l.register(int(l.count.Load()))}
			l.side.Go(func() {
				defer func() { <-slots[i] }()
				l.do(ctx, node, op, patientWait)
			})
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// Load is all the register clients of a cluster.
type Load struct {
	loaders []*loader
	stop    context.CancelFunc
	tasks   sync.WaitGroup
}

// loadersPerPlane is how many clients share the registers of a plane.
const loadersPerPlane = 3

// stalkerID is the number of the client that stalks.
const stalkerID = 2*loadersPerPlane + 1

// startLoad starts the register clients. now is the clock of their record;
// compare says whether the nodes offer writes that depend on a revision.
func startLoad(nodes []democluster.Node, now func() time.Duration, compare bool) *Load {
	ctx, cancel := context.WithCancel(context.Background())
	load := &Load{stop: cancel}
	for i, p := range []plane{dataPlane(), kvPlane()} {
		p.compare = p.kv && compare
		var count atomic.Int64
		var hint atomic.Uint64
		for n := range loadersPerPlane {
			l := newLoader(i*loadersPerPlane+n+1, p, nodes, now, &count, &hint)
			load.loaders = append(load.loaders, l)
			load.tasks.Go(func() { l.run(ctx) })
		}
		if !p.kv {
			l := newLoader(stalkerID, p, nodes, now, &count, &hint)
			load.loaders = append(load.loaders, l)
			load.tasks.Go(func() { l.stalk(ctx) })
		}
	}
	return load
}

// Close stops the clients and waits for them.
func (l *Load) Close() {
	l.stop()
	l.tasks.Wait()
}

// Ops returns everything recorded, of all clients, and must be called after
// Close.
func (l *Load) Ops() []Op {
	var ops []Op
	for _, one := range l.loaders {
		ops = append(ops, one.record()...)
	}
	slices.SortStableFunc(ops, func(a, b Op) int { return cmp.Compare(a.Start, b.Start) })
	return ops
}

// keys returns the registers of both planes, and the prefixes of the unique
// keys, each once. It must be called after Close.
func (l *Load) keys() (data, kv, unique []string) {
	for _, one := range l.loaders {
		for _, o := range one.record() {
			switch {
			case isUnique(o.Key):
				unique = append(unique, o.Key[:strings.LastIndexByte(o.Key, '.')+1])
			case one.plane.kv:
				kv = append(kv, o.Key)
			default:
				data = append(data, o.Key)
			}
		}
	}
	for _, list := range []*[]string{&data, &kv, &unique} {
		slices.Sort(*list)
		*list = slices.Compact(*list)
	}
	return data, kv, unique
}
