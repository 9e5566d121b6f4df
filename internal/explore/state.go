package explore

import (
	"encoding/binary"
	"hash/maphash"
	"slices"
	"sort"
	"time"

	"github.com/aiondb/aiondb-ha/protocol"
)

const (
	nodes     = 3
	quorum    = nodes/2 + 1
	maxEpochs = 24 // room in the arrays; the bound is Bounds.Terms
)

// entry is one entry of the abstract Raft's log.
type entry struct {
	term uint8
	fork bool // else a noop
	by   protocol.NodeID
	from protocol.Position // where the fork is
}

// wal is a write-ahead log: the epoch that wrote each record, by LSN. A record
// is known by its epoch and LSN: one primary an epoch, which never writes an
// LSN twice.
type wal string

func (w wal) position() protocol.Position {
	if w == "" {
		return protocol.Position{}
	}
	return protocol.Position{Timeline: protocol.Epoch(w[len(w)-1]), LSN: protocol.LSN(len(w))}
}

func (w wal) lineage() protocol.Lineage {
	var l protocol.Lineage
	for i := range len(w) {
		if e := protocol.Epoch(w[i]); len(l) == 0 || l[len(l)-1].Epoch != e {
			l = append(l, protocol.Segment{Epoch: e})
		}
		l[len(l)-1].End = protocol.LSN(i + 1)
	}
	return l
}

func (w wal) String() string {
	out := make([]byte, len(w))
	for i := range len(w) {
		out[i] = '0' + w[i]
	}
	return "[" + string(out) + "]"
}

// follow is whom a database was told to follow: a Demotion.
type follow struct {
	epoch   protocol.Epoch
	primary protocol.NodeID
}

type taskKind uint8

const (
	commitNoop taskKind = iota
	prepare
	commitFork
	acquireToken
	offerLeadership
	newTerm
	vote
)

// task is an action of the machine, or a ballot, on its way through the driver.
type task struct {
	kind    taskKind
	awaited bool // the machine waits for the answer
	stage   uint8
	epoch   protocol.Epoch
	node    protocol.NodeID // offer: to whom; vote: the candidate
	from    protocol.Position
	read    protocol.Position // prepare, vote: the own one, as read; commitFork: the true one of the fork
	index   uint8             // commitNoop, commitFork: of the entry, once proposed
	orphan  bool              // vote: nobody waits for the answer
}

type messageKind uint8

const (
	ballotRequest messageKind = iota
	ballotAnswer
	promoteNotify
	appendSuccess // answer to an AppendEntries, on its way to the leader
	appendHeld    // the same, still in the hands of the voter's Raft; in a fine world
)

type message struct {
	kind     messageKind
	to, from protocol.NodeID
	epoch    protocol.Epoch
	position protocol.Position
	current  bool // ballotRequest: of the machine's round
	orphan   bool // ballotRequest: the candidate has crashed since
	answer   protocol.BallotAnswer
	sent     time.Duration // appendSuccess: on the leader's clock
	match    uint8
}

// node is one node. Term, log, floor and WAL are on disk; a crash ends the rest.
type node struct {
	up bool

	// The abstract Raft.
	term   uint8
	log    []entry // never written in place
	leader bool
	commit uint8
	match  [nodes]uint8

	// What stands around the machine.
	floor  promise
	barred protocol.Epoch
	guard  guard
	led    protocol.Epoch
	help   help
	stamps stamps
	mach   *machine
	idle   uint8 // steps of the clock since the machine's last input
	tasks  []task
	inbox  []stimulus // what the machine has not heard of yet; in a fine world

	// The database and its worker.
	wal          wal
	volatile     uint8 // records at the end of wal that are not flushed; for a mutant
	fence        protocol.Epoch
	primary      protocol.Epoch // 0: replica
	following    follow
	demotion     *follow
	promotion    protocol.Epoch // 0: none
	promoAwaited bool
}

// state is one state of the whole. What is not of a node and not a message is
// known to nobody: budgets of the exploration, and the checker's own memory.
type state struct {
	nodes    [nodes]node
	messages []message
	clock    uint8

	writes, crashes, faults, switches uint8 // used up

	stream   [maxEpochs]wal          // longest WAL of each epoch's primary; what replicas receive from
	begun    [maxEpochs]bool         // a database was promoted in it
	acked    [maxEpochs]uint8        // LSN of the last acknowledged record of each epoch
	received [nodes][maxEpochs]uint8 // LSN each replica has confirmed to each epoch's primary
	opened   [maxEpochs]uint8        // which nodes ever opened their guard in it
	forks    [maxEpochs]entry        // committed, as anybody saw it
	promised [nodes]protocol.Epoch   // highest ballot answered with a promise
}

func (s *state) clone() *state {
	c := *s
	c.messages = slices.Clone(s.messages)
	for i := range c.nodes {
		c.nodes[i].tasks = slices.Clone(s.nodes[i].tasks)
	}
	return &c
}

// encode appends all of s that tells it from other states.
func (s *state) encode(b []byte) []byte {
	u := func(v uint64) { b = binary.AppendUvarint(b, v) }
	flag := func(vs ...bool) {
		var v uint64
		for _, on := range vs {
			v <<= 1
			if on {
				v |= 1
			}
		}
		u(v)
	}
	d := func(v time.Duration) { b = binary.LittleEndian.AppendUint64(b, uint64(v)) }
	pos := func(p protocol.Position) { u(uint64(p.Timeline)); u(uint64(p.LSN)) }
	for i := range s.nodes {
		n := &s.nodes[i]
		flag(n.up, n.leader, n.promoAwaited, n.demotion != nil, n.mach != nil)
		u(uint64(n.term))
		u(uint64(len(n.log)))
		for _, e := range n.log {
			flag(e.fork)
			u(uint64(e.term))
			u(uint64(e.by))
			pos(e.from)
		}
		u(uint64(n.commit))
		b = append(b, n.match[:]...)
		u(uint64(n.floor.epoch))
		u(uint64(n.floor.to))
		u(uint64(n.barred))
		u(uint64(n.guard.open))
		u(uint64(n.guard.closed))
		d(n.guard.deadline)
		u(uint64(n.led))
		u(uint64(n.help.epoch))
		u(uint64(n.help.before))
		d(n.help.last)
		d(n.help.earlier)
		for _, at := range n.stamps {
			d(at)
		}
		if n.mach != nil {
			u(uint64(n.mach.id))
		}
		u(uint64(n.idle))
		u(uint64(len(n.tasks)))
		for _, t := range n.tasks {
			u(uint64(t.kind)<<8 | uint64(t.stage))
			flag(t.awaited, t.orphan)
			u(uint64(t.epoch))
			u(uint64(t.node))
			pos(t.from)
			pos(t.read)
			u(uint64(t.index))
		}
		u(uint64(len(n.inbox)))
		for _, in := range n.inbox {
			u(uint64(in.kind))
			u(uint64(in.epoch))
			u(uint64(in.node))
			b = message{answer: in.answer, from: in.answer.VoterID, epoch: in.answer.Epoch}.encode(b)
		}
		u(uint64(len(n.wal)))
		b = append(b, n.wal...)
		u(uint64(n.volatile))
		u(uint64(n.fence))
		u(uint64(n.primary))
		u(uint64(n.following.epoch))
		u(uint64(n.following.primary))
		if n.demotion != nil {
			u(uint64(n.demotion.epoch))
			u(uint64(n.demotion.primary))
		}
		u(uint64(n.promotion))
		u(uint64(s.promised[i]))
		b = append(b, s.received[i][:]...)
	}
	u(uint64(len(s.messages)))
	for _, m := range s.messages {
		b = m.encode(b)
	}
	b = append(b, s.clock, s.writes, s.crashes, s.faults, s.switches)
	for e := range maxEpochs {
		u(uint64(len(s.stream[e])))
		b = append(b, s.stream[e]...)
		flag(s.begun[e], s.forks[e].fork)
		b = append(b, s.acked[e], s.opened[e])
	}
	return b
}

func (m message) encode(b []byte) []byte {
	for _, v := range []uint64{uint64(m.kind), uint64(m.to), uint64(m.from), uint64(m.epoch), uint64(m.position.Timeline), uint64(m.position.LSN),
		uint64(m.answer.Refusal), uint64(m.answer.Floor), uint64(m.answer.Position.Timeline), uint64(m.answer.Position.LSN),
		m.answer.AgeUS, uint64(m.sent), uint64(m.match)} {
		b = binary.AppendUvarint(b, v)
	}
	flags := byte(0)
	if m.current {
		flags |= 1
	}
	if m.orphan {
		flags |= 2
	}
	return append(b, flags)
}

// settle puts what has no order into one, and forgets what cannot matter any
// more.
func (s *state) settle() {
	for e := range maxEpochs {
		if s.begun[e] && !slices.ContainsFunc(s.nodes[:], func(n node) bool { return n.primary == protocol.Epoch(e) }) {
			for i := range s.received { // its primary is gone for good
				s.received[i][e] = 0
			}
		}
	}
	if len(s.messages) > 1 {
		sort.SliceStable(s.messages, func(i, j int) bool {
			var a, b [160]byte
			return string(s.messages[i].encode(a[:0])) < string(s.messages[j].encode(b[:0]))
		})
	}
}

var seed = maphash.MakeSeed()
var seed2 = maphash.MakeSeed()

// digest is 128 bits of a state. Two states that agree in it are taken for one.
type digest [2]uint64

func digestOf(encoded []byte) digest {
	return digest{maphash.Bytes(seed, encoded), maphash.Bytes(seed2, encoded)}
}
