package fsm

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/aiondb/aiondb-ha/fsm/command"
	"github.com/aiondb/aiondb-ha/protocol"
)

func TestRules(t *testing.T) {
	s := NewState()
	index := uint64(0)
	apply := func(c command.KvWrite, err error) {
		t.Helper()
		index++
		if err != nil {
			t.Fatal(err)
		}
		if r := s.Apply(index, 1, c); r.Err() != nil || !r.Changed {
			t.Fatalf("%+v", r)
		}
	}
	if got := s.Rules(); got.Pause != nil || got.Permit != nil || len(got.Maintenance)+len(got.Witnesses) > 0 {
		t.Errorf("without rules: %+v", got)
	}
	m := Mark{At: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Node: 1, Reason: "new switch"}
	apply(PauseCommand(m))
	for _, id := range []uint64{10, 2} {
		apply(MaintenanceCommand(NodeMark{Mark: m}.of(id)))
	}
	apply(WitnessCommand(NodeMark{Mark: m}.of(3)))
	apply(PermitCommand(Permit{NodeID: 2, After: 7, Mark: m}))
	want := Rules{Pause: &m, Maintenance: []NodeMark{NodeMark{Mark: m}.of(2), NodeMark{Mark: m}.of(10)},
		Witnesses: []NodeMark{NodeMark{Mark: m}.of(3)}, Permit: &Permit{NodeID: 2, After: 7, Mark: m}}
	if got := s.Rules(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	apply(ResumeCommand(), nil)
	apply(EndMaintenanceCommand(2), nil)
	apply(NoWitnessCommand(3), nil)
	if got := s.Rules(); got.Pause != nil || len(got.Maintenance) != 1 || len(got.Witnesses) != 0 {
		t.Errorf("after taking them back: %+v", got)
	}
	// A value that nobody can read is a rule all the same: it errs to the safe side.
	apply(command.KvWrite{Key: []byte("ha/rules/pause"), Value: []byte("{")}, nil)
	apply(command.KvWrite{Key: []byte("ha/rules/maintenance/x"), Value: []byte("{")}, nil)
	if got := s.Rules(); got.Pause == nil || len(got.Maintenance) != 1 {
		t.Errorf("with damage: %+v", got)
	}
	if _, err := PauseCommand(Mark{Reason: strings.Repeat("x", MaxReasonLen+1)}); err == nil {
		t.Error("a reason without end is taken")
	}
}

func (m NodeMark) of(id uint64) NodeMark {
	m.NodeID = protocol.NodeID(id)
	return m
}

func TestProgress(t *testing.T) {
	s := NewState()
	if got := s.Progress(); got != (protocol.Position{}) {
		t.Errorf("before anybody said anything: %v", got)
	}
	want := protocol.Position{Timeline: 7, LSN: 1<<63 + 5}
	c, err := ProgressCommand(want)
	if err != nil {
		t.Fatal(err)
	}
	if r := s.Apply(1, 7, c); r.Err() != nil || s.Progress() != want {
		t.Errorf("%+v, %v", r, s.Progress())
	}
	c.Value = []byte("{")
	if r := s.Apply(2, 7, c); r.Err() != nil || s.Progress() != (protocol.Position{}) {
		t.Errorf("%+v, damaged %v", r, s.Progress())
	}
}
