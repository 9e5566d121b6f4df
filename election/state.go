package election

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"github.com/aiondb/aiondb-ha/protocol"
)

// State is what AionDB keeps of its elections in a file. This project keeps
// the floor instead (package fencing); State is read when a node moves over,
// so that what it has promised stays promised.
type State struct {
	CurrentEpoch protocol.Epoch
	VotedEpoch   protocol.Epoch  // 0: never voted
	VotedFor     protocol.NodeID // NoNode: never voted
}

// ParseState reads AionDB's election file:
//
//	{"current_epoch":4,"voted_for":[4,1]}     voted in epoch 4 for node 1
//	{"current_epoch":4,"voted_for":null}
func ParseState(raw []byte) (State, error) {
	var file struct {
		CurrentEpoch *uint64    `json:"current_epoch"`
		VotedFor     *[2]uint64 `json:"voted_for"`
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&file); err != nil {
		return State{}, fmt.Errorf("election file: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return State{}, fmt.Errorf("election file: something follows the JSON object")
	}
	if file.CurrentEpoch == nil {
		return State{}, fmt.Errorf("election file: current_epoch is missing")
	}
	s := State{CurrentEpoch: protocol.Epoch(*file.CurrentEpoch)}
	if file.VotedFor != nil {
		s.VotedEpoch, s.VotedFor = protocol.Epoch(file.VotedFor[0]), protocol.NodeID(file.VotedFor[1])
		if s.VotedFor == protocol.NoNode {
			return State{}, fmt.Errorf("election file: voted for node 0, which is nobody")
		}
		if s.VotedEpoch > s.CurrentEpoch {
			return State{}, fmt.Errorf("election file: voted in epoch %d, after the current epoch %d", s.VotedEpoch, s.CurrentEpoch)
		}
	}
	return s, nil
}
