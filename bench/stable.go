package main

import (
	"bytes"
	"fmt"
	"path/filepath"
	"time"
)

// The keys under which hashicorp/raft keeps its term and its vote.
var (
	keyCurrentTerm  = []byte("CurrentTerm")
	keyLastVoteTerm = []byte("LastVoteTerm")
	keyLastVoteCand = []byte("LastVoteCand")
)

// stableStore measures the StableStore: single values, and a whole vote.
func stableStore(b *bench) error {
	for _, m := range []struct {
		name, label string
		bytes       int // what a disk would have to write
		goals       []goal
		do          func(s store, n uint64) (time.Duration, error)
	}{
		{"stable/set", "Set, 24 bytes", 24, nil, setBytes},
		{"stable/setuint64", "SetUint64", 8, nil, setUint64},
		{"stable/vote", "a vote in a new term", 8 + 8 + 24, []goal{atMost(1, nameBolt)}, vote},
	} {
		err := b.step(m.name, func(dir string) error {
			all, err := pairedStable(b, dir, m.bytes, m.do)
			if err == nil {
				b.add(makeRow("StableStore", m.label, nanoseconds, all, m.goals...))
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func pairedStable(b *bench, dir string, size int, do func(s store, n uint64) (time.Duration, error)) ([]series, error) {
	calls := max(1, b.scale.appends/2)
	var cs []contender
	for _, k := range kinds {
		l, err := openLane(k, filepath.Join(dir, k.name), newOpaque(128))
		if err != nil {
			cs = append(cs, broken(k.name, err))
			continue
		}
		defer func() { _ = l.close() }()
		if err := l.fillTo(b.scale.preload); err != nil {
			cs = append(cs, broken(k.name, err))
			continue
		}
		n := uint64(1)
		cs = append(cs, contender{k.name, func(int) (float64, error) {
			took := make([]float64, 0, calls)
			for range calls {
				n++
				t, err := do(l.store, n)
				if err != nil {
					return 0, err
				}
				took = append(took, float64(t))
			}
			return medianOf(took), nil
		}})
	}
	d, err := newDisk(filepath.Join(dir, nameDisk), 1<<20, newOpaque(size))
	if err != nil {
		return nil, err
	}
	defer func() { _ = d.close() }()
	cs = append(cs, contender{nameDisk, appendRound(calls, 1, 0, nil, d.append)})
	return alternate(b.scale.rounds, cs), nil
}

// candidate is an address such as Raft's transports encode it.
func candidate(n uint64) []byte { return fmt.Appendf(nil, "%d@node-%d.example.net:5433", n%3+1, n%3+1) }

func setBytes(s store, n uint64) (time.Duration, error) {
	key, value := []byte("bench"), fmt.Appendf(nil, "%024d", n)
	start := time.Now()
	err := s.Set(key, value)
	took := time.Since(start)
	if err != nil {
		return 0, err
	}
	return took, wantBytes(s, key, value)
}

func setUint64(s store, n uint64) (time.Duration, error) {
	key := []byte("bench")
	start := time.Now()
	err := s.SetUint64(key, n)
	took := time.Since(start)
	if err != nil {
		return 0, err
	}
	return took, wantUint64(s, key, n)
}

// vote makes the writes that hashicorp/raft v1.8.0 makes when it grants a vote
// in a term that is new to it (requestVote: setCurrentTerm, then persistVote),
// or votes for itself (electSelf, the same two).
func vote(s store, term uint64) (time.Duration, error) {
	cand := candidate(term)
	start := time.Now()
	err := s.SetUint64(keyCurrentTerm, term)
	if err == nil {
		err = s.SetUint64(keyLastVoteTerm, term)
	}
	if err == nil {
		err = s.Set(keyLastVoteCand, cand)
	}
	took := time.Since(start)
	for _, check := range []func() error{
		func() error { return err },
		func() error { return wantUint64(s, keyCurrentTerm, term) },
		func() error { return wantUint64(s, keyLastVoteTerm, term) },
		func() error { return wantBytes(s, keyLastVoteCand, cand) },
	} {
		if err := check(); err != nil {
			return 0, err
		}
	}
	return took, nil
}

func wantBytes(s store, key, want []byte) error {
	got, err := s.Get(key)
	if err == nil && !bytes.Equal(got, want) {
		err = fmt.Errorf("value of %s: %q, want %q", key, got, want)
	}
	return err
}

func wantUint64(s store, key []byte, want uint64) error {
	got, err := s.GetUint64(key)
	if err == nil && got != want {
		err = fmt.Errorf("value of %s: %d, want %d", key, got, want)
	}
	return err
}
