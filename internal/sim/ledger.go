package sim

import (
	"fmt"
	"sync"
	"time"

	"github.com/aiondb/aiondb-ha/protocol"
)

// mostViolations bounds how many are told of one run.
const mostViolations = 8

// ledger is the all-seeing witness: it is told of every acknowledgement, every
// read, every promotion and every promise, and checks the invariants there. Its
// lock is the last one taken.
type ledger struct {
	c *cluster

	mu         sync.Mutex
	violations []string
	tolerated  map[string]int // violations of invariants that a run is not about
	story      []string       // the last of what happened

	acked    []mark // highest acknowledged LSN of each epoch, by epoch
	eras     []era  // promotions, by epoch
	primary  map[protocol.Epoch]protocol.NodeID
	promised map[protocol.NodeID]promise // by ballots answered
	floors   map[protocol.NodeID]protocol.Epoch

	acks, reads, promotions int
	lastAck                 time.Time
	calmSince               time.Time     // no fault has begun or ended since
	longest                 time.Duration // without an acknowledgement in the calm, a quorum being well
	gapTold                 bool
}

// mark is a log up to an LSN.
type mark struct {
	epoch protocol.Epoch
	lsn   int
	sum   uint64
}

// era is one promotion: the log it begins with.
type era struct {
	epoch protocol.Epoch
	log   wal
}

type promise struct {
	epoch protocol.Epoch
	at    time.Time
}

func newLedger(c *cluster) *ledger {
	return &ledger{c: c, primary: map[protocol.Epoch]protocol.NodeID{}, promised: map[protocol.NodeID]promise{},
		floors: map[protocol.NodeID]protocol.Epoch{}, tolerated: map[string]int{}, lastAck: time.Now(), calmSince: time.Now()}
}

func (l *ledger) violated(invariant, format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broke(invariant, format, args...)
}

// broke notes a violation. The caller holds mu.
func (l *ledger) broke(invariant, format string, args ...any) {
	if times, is := l.tolerated[invariant]; is {
		l.tolerated[invariant] = times + 1
		return
	}
	line := fmt.Sprintf("%s at %s: %s", invariant, l.c.since(), fmt.Sprintf(format, args...))
	if len(l.violations) < mostViolations {
		l.violations = append(l.violations, line)
	}
	l.note("VIOLATED " + line)
}

// storyLength is how much of what happened is kept.
const storyLength = 400

// speaksTwice reports whether two may speak at once in this run.
func (l *ledger) speaksTwice() bool {
	_, is := l.tolerated["I1"]
	return is
}

// note adds a line to the story. The caller holds mu.
func (l *ledger) note(line string) {
	if len(l.story) >= 2*storyLength {
		l.story = append(l.story[:0], l.story[storyLength:]...)
	}
	l.story = append(l.story, fmt.Sprintf("%9s %s", l.c.since(), line))
}

func (l *ledger) tell(format string, args ...any) {
	line := fmt.Sprintf(format, args...)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.note(line)
}

// oneSpeaker checks that at this instant no other guard lets its node speak
// (I1). The caller holds mu.
func (l *ledger) oneSpeaker(p *process) {
	for _, other := range l.c.all() {
		if other == p {
			continue
		}
		if epoch, open := other.guard.Epoch(); open && other.guard.Check(epoch) == nil {
			own, _ := p.guard.Epoch()
			l.broke("I1", "the guard of node %d lets it speak in epoch %d while that of node %d does in epoch %d", other.id, epoch, p.id, own)
		}
	}
}

// acknowledged is told of a write that is acknowledged at this instant: log is
// what the primary's log is up to it.
func (l *ledger) acknowledged(p *process, epoch protocol.Epoch, log *wal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acks++
	now := time.Now()
	if gap := now.Sub(later(l.lastAck, l.calmSince)); l.c.calm() {
		l.longest = max(l.longest, gap)
	}
	l.lastAck, l.gapTold = now, false
	l.oneSpeaker(p)
	if p.isDead() {
		l.broke("sim", "a dead process acknowledged")
	}
	for _, e := range l.eras {
		if e.epoch > epoch {
			l.broke("I1", "node %d acknowledges LSN %d in epoch %d, and node %d was promoted in epoch %d", p.id, log.end(), epoch, l.primary[e.epoch], e.epoch)
			if !e.log.has(log.end(), log.sum(log.end())) {
				l.broke("I3", "node %d acknowledges LSN %d in epoch %d, which the log of epoch %d does not have", p.id, log.end(), epoch, e.epoch)
			}
		}
	}
	at := len(l.acked)
	for at > 0 && l.acked[at-1].epoch >= epoch {
		at--
	}
	switch {
	case at < len(l.acked) && l.acked[at].epoch == epoch:
		if m := &l.acked[at]; log.end() > m.lsn {
			if !log.has(m.lsn, m.sum) {
				l.broke("I3", "LSN %d of epoch %d was acknowledged, and is not in what is acknowledged now", m.lsn, epoch)
			}
			m.lsn, m.sum = log.end(), log.sum(log.end())
		}
	default:
		l.contains(fmt.Sprintf("the log that node %d acknowledges from", p.id), epoch, log)
		l.acked = append(l.acked[:at:at], append([]mark{{epoch, log.end(), log.sum(log.end())}}, l.acked[at:]...)...)
	}
	l.forget()
}

// remembered is how many epochs the ledger keeps. Older ones are contained in
// newer ones, or it would have said so.
const remembered = 64

func (l *ledger) forget() {
	if len(l.acked) > remembered {
		l.acked = append(l.acked[:0:0], l.acked[len(l.acked)-remembered:]...)
	}
	if len(l.eras) > remembered {
		l.eras = append(l.eras[:0:0], l.eras[len(l.eras)-remembered:]...)
	}
}

// contains checks that a log of epoch holds what was acknowledged in earlier
// ones (I3). The caller holds mu.
func (l *ledger) contains(what string, epoch protocol.Epoch, log *wal) {
	for i := len(l.acked) - 1; i >= 0; i-- {
		if m := l.acked[i]; m.epoch < epoch {
			if !log.has(m.lsn, m.sum) {
				l.broke("I3", "%s in epoch %d ends at LSN %d and does not have LSN %d, acknowledged in epoch %d", what, epoch, log.end(), m.lsn, m.epoch)
			}
			if !l.speaksTwice() {
				return // it contains those before it
			}
		}
	}
}

// readBegins returns what a read that begins now must see: everything
// acknowledged so far.
func (l *ledger) readBegins() []mark {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.acked); n > 0 {
		return []mark{l.acked[n-1]}
	}
	return nil
}

// read is told of a linearizable read that is answered at this instant.
func (l *ledger) read(p *process, epoch protocol.Epoch, since []mark, seen *wal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reads++
	l.oneSpeaker(p)
	for _, m := range since {
		if !seen.has(m.lsn, m.sum) {
			l.broke("stale", "node %d, in epoch %d, shows the log up to LSN %d, and LSN %d of epoch %d was acknowledged before it was asked", p.id, epoch, seen.end(), m.lsn, m.epoch)
		}
	}
}

// promoted is told of a database that is promoted at this instant.
func (l *ledger) promoted(p *process, epoch protocol.Epoch, log wal) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.promotions++
	l.note(fmt.Sprintf("node %d is promoted in epoch %d, at %v", p.id, epoch, log.position(log.end())))
	if other, there := l.primary[epoch]; there {
		l.broke("I1", "node %d is promoted in epoch %d, and node %d was promoted in it before", p.id, epoch, other)
	}
	if l.c.quiet && l.promotions > 1 {
		l.broke("I7", "node %d becomes primary in epoch %d, and nothing has happened that may depose the one before", p.id, epoch)
	}
	l.primary[epoch] = p.id
	if p.guard.Check(epoch) == nil { // or it was paused meanwhile, and another one is primary
		l.oneSpeaker(p)
	}
	l.contains(fmt.Sprintf("the log of node %d, promoted", p.id), epoch, &log)
	at := len(l.eras)
	for at > 0 && l.eras[at-1].epoch > epoch {
		at--
	}
	l.eras = append(l.eras[:at:at], append([]era{{epoch, log}}, l.eras[at:]...)...)
	l.forget()
}

// newest returns the highest epoch a database was promoted in.
func (l *ledger) newest() protocol.Epoch {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.eras); n > 0 {
		return l.eras[n-1].epoch
	}
	return 0
}

// answered is told that a node has promised itself to an epoch in an answer
// that leaves it now.
func (l *ledger) answered(p *process, epoch protocol.Epoch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if epoch > l.promised[p.id].epoch {
		l.promised[p.id] = promise{epoch, time.Now()}
	}
}

// broken reports whether a node does something of an epoch below what it has
// promised. What happens at the instant of the answer may have come before it.
func (l *ledger) broken(p *process, epoch protocol.Epoch) bool {
	promise := l.promised[p.id]
	return !p.isDead() && epoch < promise.epoch && time.Now().After(promise.at)
}

// helped is told that a node lets an AppendEntries succeed (I5).
func (l *ledger) helped(p *process, epoch protocol.Epoch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken(p, epoch) {
		l.broke("I5", "node %d lets an AppendEntries of epoch %d succeed, and has promised itself to %d", p.id, epoch, l.promised[p.id].epoch)
	}
}

// received is told that a replica takes records of an epoch (I5).
func (l *ledger) received(p *process, epoch protocol.Epoch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken(p, epoch) {
		l.broke("I5", "node %d takes records of epoch %d, and has promised itself to %d", p.id, epoch, l.promised[p.id].epoch)
	}
}

// floor is told of a node's floor, now and then and at every start (I2).
func (l *ledger) floor(p *process, epoch protocol.Epoch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.isDead() {
		return
	}
	if epoch < l.floors[p.id] {
		l.broke("I2", "the floor of node %d goes from %d to %d", p.id, l.floors[p.id], epoch)
	}
	if promise := l.promised[p.id]; epoch < promise.epoch && time.Now().After(promise.at) {
		l.broke("I2", "the floor of node %d is %d, and it has promised itself to %d", p.id, epoch, promise.epoch)
	}
	l.floors[p.id] = max(l.floors[p.id], epoch)
}

// woken is told that a process wakes after a pause, before anything else in it
// does: if another node was promoted meanwhile, its guard must have lapsed (I4).
func (l *ledger) woken(p *process) {
	l.mu.Lock()
	defer l.mu.Unlock()
	epoch, open := p.guard.Epoch()
	if !open || p.guard.Check(epoch) != nil {
		return
	}
	if n := len(l.eras); n > 0 && l.eras[n-1].epoch > epoch {
		l.broke("I4", "node %d wakes with its guard open in epoch %d, and epoch %d has its primary", p.id, epoch, l.eras[n-1].epoch)
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// disturbed is told that a fault begins or ends.
func (l *ledger) disturbed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calmSince = time.Now()
}

// look is called every few milliseconds. In the calm, with a quorum well, there
// must be acknowledgements again in time (I6).
func (l *ledger) look() {
	l.mu.Lock()
	gap := time.Since(later(l.lastAck, l.calmSince))
	told := l.gapTold
	l.mu.Unlock()
	if gap < l.c.bound || told || !l.c.calm() || !l.c.quorumIsWell() {
		return
	}
	l.mu.Lock()
	l.gapTold = true
	l.broke("I6", "a quorum is well, and nothing has been acknowledged for %v", gap)
	l.mu.Unlock()
	l.c.describe()
}

// soFar returns what has come of the run until now.
func (l *ledger) soFar() Result {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Result{Violations: l.violations, Story: l.story, tolerated: l.tolerated, Acks: l.acks, Reads: l.reads,
		Promotions: l.promotions, Failovers: max(0, l.promotions-1), Longest: l.longest}
}

// found returns what is violated so far.
func (l *ledger) found() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.violations[:len(l.violations):len(l.violations)]
}

func (l *ledger) ackedSince(t time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lastAck.After(t)
}
