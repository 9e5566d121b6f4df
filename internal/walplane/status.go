package walplane

import (
	"cmp"
	"slices"

	"github.com/aiondb/aiondb-ha/protocol"
)

// Status is a DB at one moment.
type Status struct {
	NodeID         protocol.NodeID   `json:"node_id"`
	Role           protocol.NodeRole `json:"role"`
	Epoch          protocol.Epoch    `json:"epoch"` // served as primary, or followed; 0 for neither
	Fence          protocol.Epoch    `json:"fence"`
	Position       protocol.Position `json:"position"`
	CommitLSN      protocol.LSN      `json:"commit_lsn"`  // highest known to be committed; 0 after a start until a primary tells
	AppliedLSN     protocol.LSN      `json:"applied_lsn"` // up to here reads see the log
	LogBytes       int64             `json:"log_bytes"`
	AgeMS          int64             `json:"age_ms"`            // of what reads see, at most; -1 if unknown
	Held           bool              `json:"held"`              // StopWrites is in force
	Primary        protocol.NodeID   `json:"primary"`           // that a replica was told of; this node if it is primary; 0 if unknown
	PrimaryAddress string            `json:"primary_address"`   // of that replica's primary
	Connected      bool              `json:"connected"`         // a replica's stream stands
	Replicas       []ReplicaStatus   `json:"replicas"`          // on a primary, by node ID
	Blocked        string            `json:"blocked,omitempty"` // why a replica does not follow
	Failed         string            `json:"failed,omitempty"`  // why the DB refuses everything
}

// ReplicaStatus is a replica as its primary sees it.
type ReplicaStatus struct {
	NodeID     protocol.NodeID `json:"node_id"`
	FlushedLSN protocol.LSN    `json:"flushed_lsn"`
	Connected  bool            `json:"connected"`
	Voter      bool            `json:"voter"`
}

// Status returns the DB's state. It works on a failed and on a closed DB.
func (db *DB) Status() Status {
	age, _ := db.Age()
	position, failed := db.wal.position()
	db.mu.Lock()
	defer db.mu.Unlock()
	s := Status{
		NodeID:     db.cfg.NodeID,
		Role:       protocol.RoleReplica,
		Fence:      db.fence,
		Position:   position,
		CommitLSN:  db.commit,
		AppliedLSN: db.applied,
		LogBytes:   db.wal.bytes(),
		AgeMS:      -1,
		Primary:    db.demotion.Primary,
		Replicas:   []ReplicaStatus{},
	}
	if age >= 0 {
		s.AgeMS = age.Milliseconds()
	}
	if err := cmp.Or(db.usable(), failed); err != nil {
		s.Failed = err.Error()
	}
	if db.blocked != nil {
		s.Blocked = db.blocked.Error()
	}
	if t := db.term; t != nil {
		s.Role, s.Epoch, s.Primary, s.Held = protocol.RolePrimary, t.epoch, db.cfg.NodeID, t.held != nil
		for id, lsn := range t.acked {
			s.Replicas = append(s.Replicas, ReplicaStatus{NodeID: id, FlushedLSN: lsn, Connected: t.sessions[id] != nil, Voter: db.isVoter(id)})
		}
		slices.SortFunc(s.Replicas, func(a, b ReplicaStatus) int { return cmp.Compare(a.NodeID, b.NodeID) })
		return s
	}
	s.PrimaryAddress = db.demotion.Address
	if f := db.follower; f != nil {
		s.Epoch, s.Connected = f.epoch, f.connected
	}
	return s
}
