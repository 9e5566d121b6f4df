package jsonlstore

import (
	"path/filepath"
	"strings"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/fsm/command"
	"github.com/aiondb/aiondb-ha/logstore"
)

// survey is everything that Stat and Repair want to know of a log, from one walk.
type survey struct {
	w    logWalk
	path string // of the open part

	entries     int
	first, last uint64 // indexes; 0, 0: no entries
	batches     int
	terms       []TermSpan
	types       map[string]int
	commands    map[string]int
	commit      uint64 // the highest commit index that a line names
	maxTerm     uint64 // of all lines that can be read, those that will be cut included

	damage      []*logstore.CorruptionError
	damageCount int
	badIndexes  []*logstore.CorruptionError // of sealed parts: no entry is lost by them
	deleted     []*logstore.CorruptionError // in deleted lines of the open part, up to MaxDamageListed places

	kept struct { // what stands before the first damage
		entries     int
		first, last uint64
		path        string // of the part that holds the last line
		line        int    // number of that
		end         int64  // behind it
	}
	behind struct { // what can be read behind the first damage
		entries     int
		first, last uint64
		laterBatch  bool // some of it was written after the sync of what is damaged
	}

	batch   uint64        // of the entries in pending
	pending []surveyEntry // the last batch so far: it may go with a torn tail
}

type surveyEntry struct {
	index, term, commit uint64
	kind                string // type
	command             string // "": it is no command
	path                string
	line                int
	end                 int64
	damaged             bool // stands behind damage
}

func surveyLog(o options, dir string) (*survey, error) {
	s := &survey{path: filepath.Join(dir, LogFile), types: make(map[string]int), commands: make(map[string]int)}
	s.w = logWalk{o: o, dir: dir, visit: s.visit, damaged: func(e *logstore.CorruptionError) error { s.damaged(e); return nil }}
	s.w.spoilt = func(e *logstore.CorruptionError) error { s.spoilt(e); return nil }
	s.w.endPart = func() {
		if n := len(s.pending); n > 0 && s.pending[n-1].index <= s.w.last {
			s.settle()
		}
	}
	if err := s.w.run(); err != nil {
		return nil, err
	}
	return s, s.w.isStateDirectory()
}

func (s *survey) damaged(e *logstore.CorruptionError) {
	s.damageCount++
	if len(s.damage) < MaxDamageListed {
		s.damage = append(s.damage, e)
	}
}

func (s *survey) spoilt(e *logstore.CorruptionError) {
	switch {
	case strings.HasSuffix(e.File, indexSuffix):
		s.badIndexes = append(s.badIndexes, e)
	case len(s.deleted) < MaxDamageListed:
		s.deleted = append(s.deleted, e)
	}
}

func (s *survey) visit(path string, line rawLine, p *parsedLine) error {
	var l raft.Log
	if err := p.fill(&l); err != nil { // the checksum is right, and yet
		s.damaged(badPayload(path, line, p, err))
		return nil
	}
	if p.batch == 0 || p.batch != s.batch && p.batch != s.firstPending() {
		s.settle()
		s.batch = p.batch
	}
	e := surveyEntry{index: p.index, term: p.term, commit: min(p.commit, p.index), kind: typeWord(l.Type), path: path, line: line.number, end: line.end, damaged: s.damageCount > 0}
	if l.Type == raft.LogCommand {
		e.command = commandWord(l.Data)
	}
	s.pending = append(s.pending, e)
	s.maxTerm = max(s.maxTerm, p.term)
	if e.damaged {
		at := s.damage[0].Index
		s.behind.laterBatch = s.behind.laterBatch || p.batch == 0 || at != 0 && p.batch > at
	}
	return nil
}

func (s *survey) firstPending() uint64 {
	if len(s.pending) == 0 {
		return 0
	}
	return s.pending[0].index
}

// settle counts the pending batch.
func (s *survey) settle() {
	if len(s.pending) > 0 {
		s.batches++
	}
	for i := range s.pending {
		e := &s.pending[i]
		if s.entries++; s.entries == 1 {
			s.first = e.index
		}
		s.last = e.index
		s.commit = max(s.commit, e.commit)
		s.types[e.kind]++
		if e.command != "" {
			s.commands[e.command]++
		}
		if n := len(s.terms); n > 0 && s.terms[n-1].Term == e.term {
			s.terms[n-1].Last = e.index
		} else {
			s.terms = append(s.terms, TermSpan{Term: e.term, First: e.index, Last: e.index})
		}
		if e.damaged {
			if s.behind.entries++; s.behind.entries == 1 {
				s.behind.first = e.index
			}
			s.behind.last = e.index
			continue
		}
		k := &s.kept
		if k.entries++; k.entries == 1 {
			k.first = e.index
		}
		k.last, k.path, k.line, k.end = e.index, e.path, e.line, e.end
	}
	s.pending = s.pending[:0]
}

// OpaqueCommand is what Stats calls a command whose payload is none of AionDB's.
const OpaqueCommand = "opaque"

func commandWord(data []byte) string {
	c, err := command.Decode(data)
	if err != nil {
		return OpaqueCommand
	}
	return c.Name()
}
