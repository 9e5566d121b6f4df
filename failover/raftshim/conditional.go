package raftshim

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/aiondb/aiondb-ha/failover"
	"github.com/aiondb/aiondb-ha/fsm/command"
	"github.com/hashicorp/raft"
)

// ProposeIf commits data, a KvWrite, if holds returns nil for the key as it is
// when the write takes place: no write of that key comes between. holds looks at
// the state machine, and must not block. If it returns an error, that is returned,
// nothing is proposed, and it was true at some moment since the call. All other
// errors, and the answer, are those of Propose.
//
// The replicated commands know no conditions, so the leader checks before it
// proposes. That nothing can come between:
//
//   - A proposal holds the key's lock until Raft has told its outcome, which may
//     be long after its caller has left. It comes at the end of the leadership at
//     the latest, and a leader without a quorum gives up by itself. Plain writes
//     share the lock with each other; a conditional one has it alone.
//   - holds is asked with that lock, after an entry of this leader's own term was
//     applied here. So what earlier leaders have left stands before that entry and
//     is applied, or is gone for good; and what this leader has proposed for
//     the key is applied, or was never in its log, or the leadership is over.
//   - The entry is appended in the term of that check or not at all: see KeepTerms.
//     Within a term nobody but its leader appends. In another one somebody else may
//     have written, and this node lead again without knowing.
//   - A later leader has the entry before all that it proposes itself, and applies
//     it before it checks anything; or does not have it, and it is gone.
//
// That the answer is true when holds says no: a quorum confirms, after the
// check, that this node still leads in the term of the check.
func (c *Consensus) ProposeIf(ctx context.Context, data []byte, holds func() error) (response any, index uint64, err error) {
	r := c.raft.Load()
	if r == nil {
		return nil, 0, failover.ErrClosed
	}
	key, is, err := writtenKey(data)
	if err != nil {
		return nil, 0, err
	}
	if !is {
		return nil, 0, errors.New("only the write of a key can depend on its revision")
	}
	unlock, err := c.keys.lock(ctx, c.done, key, true)
	if err != nil {
		return nil, 0, err
	}
	term, err := c.ownTerm(ctx, r)
	if err != nil {
		unlock()
		return nil, 0, fmt.Errorf("check the key: %w", err)
	}
	if no := holds(); no != nil {
		unlock() // what is written from now on does not make it less true
		if _, err := c.ReadIndex(ctx); err != nil {
			return nil, 0, fmt.Errorf("check the key: %w", err)
		}
		if r.CurrentTerm() != term {
			return nil, 0, fmt.Errorf("check the key: %w", c.notLeader())
		}
		return nil, 0, no
	}
	return c.apply(ctx, r, raft.Log{Data: data, Extensions: binary.LittleEndian.AppendUint64([]byte(termMark), term)}, unlock)
}

// writtenKey returns the key that a command writes, and whether it does.
func writtenKey(data []byte) (key string, is bool, err error) {
	c, err := command.Decode(data)
	if err != nil {
		return "", false, fmt.Errorf("this is no command that can be proposed: %w", err) // it would halt every state machine
	}
	write, is := c.(command.KvWrite)
	return string(write.Key), is, nil
}

// termMark begins the extensions of an entry that must have the term that
// follows, u64 LE.
const termMark = "aiondb-ha/term:"

// errOtherTerm says that entries were not appended.
var errOtherTerm = errors.New("the term in which this was to be appended is over")

// KeepTerms must be called by the log store of a Raft whose Consensus is asked to
// ProposeIf, with the entries it is given to store and before it stores any. An
// error says that one was to be appended in another term: the store returns the
// error, and stores none of them. Otherwise what said so is taken off the
// entries: it is neither stored nor replicated.
//
// Raft appends a proposal in whatever term it leads when it takes the proposal
// up. Here is the one place where that term is known and nothing is done yet.
// The error makes Raft give up the leadership, which it has just won; that takes
// a proposal that is held up between check and append for as long as somebody
// else leads.
func KeepTerms(logs ...*raft.Log) error {
	for _, l := range logs {
		if text, marked := bytes.CutPrefix(l.Extensions, []byte(termMark)); marked && (len(text) != 8 || binary.LittleEndian.Uint64(text) != l.Term) {
			return fmt.Errorf("entry %d of term %d: %w", l.Index, l.Term, errOtherTerm)
		}
	}
	for _, l := range logs {
		if bytes.HasPrefix(l.Extensions, []byte(termMark)) {
			l.Extensions = nil
		}
	}
	return nil
}
