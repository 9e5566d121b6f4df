package protocol

// Tag is the byte that names a message's type on the wire.
type Tag uint8

// Tags 0x10 to 0x17 are AionDB's; 0x20 and up are this project's own.
const (
	TagHeartbeat             Tag = 0x10
	TagHeartbeatAck          Tag = 0x11
	TagVoteRequest           Tag = 0x12
	TagVoteResponse          Tag = 0x13
	TagPromoteNotify         Tag = 0x14
	TagDemoteRequest         Tag = 0x15
	TagAppendEntries         Tag = 0x16
	TagAppendEntriesResponse Tag = 0x17

	TagBallotRequest  Tag = 0x20
	TagBallotAnswer   Tag = 0x21
	TagForwardRequest Tag = 0x22
	TagForwardReply   Tag = 0x23
	TagAck            Tag = 0x24
)

// Message is one of the message types of this file. Messages are plain values:
// they may be copied and compared, except that a payload slice is shared.
type Message interface {
	// Tag returns the message's type byte.
	Tag() Tag
}

// DirectedMessage is a message and whom it is for.
type DirectedMessage struct {
	To      NodeID
	Message Message
}

// Heartbeat says that a node lives, what it is and how far its WAL reaches.
// A request: answered by HeartbeatAck.
type Heartbeat struct {
	Epoch       Epoch
	NodeID      NodeID
	WALLSN      LSN
	Role        NodeRole
	TimestampUS uint64 // sender's wall clock, µs since 1970; for people, never for a decision
}

// HeartbeatAck answers a Heartbeat with the receiver's own standing.
type HeartbeatAck struct {
	Epoch  Epoch
	NodeID NodeID
	WALLSN LSN
}

// VoteRequest is AionDB's election request. This project elects by
// BallotRequest, which knows timelines; VoteRequest stays for its format.
type VoteRequest struct {
	Epoch       Epoch
	CandidateID NodeID
	LastLSN     LSN
}

// VoteResponse answers a VoteRequest.
type VoteResponse struct {
	Epoch    Epoch
	VoterID  NodeID
	Granted  bool
	VoterLSN LSN
}

// PromoteNotify tells every node who is primary of Epoch and where its
// database listens. Answered by Ack.
type PromoteNotify struct {
	Epoch          Epoch
	NewPrimaryID   NodeID
	NewPrimaryAddr string // at most MaxAddrLen bytes of UTF-8; empty if unknown
}

// DemoteRequest tells TargetID that Epoch has begun without it: a primary of a
// lower epoch closes its guard and demotes its database. Answered by Ack.
type DemoteRequest struct {
	Epoch    Epoch
	TargetID NodeID
}

// AppendEntries carries AionDB's own Raft request as opaque JSON. Here Raft's
// traffic has a channel of its own; the message stays for its format.
type AppendEntries struct {
	Payload []byte // at most MaxRaftPayload bytes
}

// AppendEntriesResponse answers AppendEntries, opaque likewise.
type AppendEntriesResponse struct {
	Payload []byte // at most MaxRaftPayload bytes
}

// BallotRequest opens the ballot of an epoch: the Raft leader of term Epoch
// asks a voter to promise itself to that epoch and to tell its position.
//
//	0x20 | epoch u64 | candidate_id u64 | timeline u64 | lsn u64
type BallotRequest struct {
	Epoch       Epoch
	CandidateID NodeID
	Position    Position // the candidate's own
}

// BallotRefusal says why a voter did not grant a ballot.
type BallotRefusal uint8

// The reasons, with their values on the wire.
const (
	BallotGranted     BallotRefusal = 0 // not a refusal
	BallotStaleEpoch  BallotRefusal = 1 // the voter's floor is above the epoch, or is that epoch promised to another node
	BallotBetter      BallotRefusal = 2 // the voter's own position is higher
	BallotUnavailable BallotRefusal = 3 // the voter could not make its promise durable, or could not read its position
)

// AgeInfinite is the Age of a voter that knows the earlier leader's guard to
// be closed for good.
const AgeInfinite uint64 = 1<<64 - 1

// BallotAnswer answers a BallotRequest.
//
//	0x21 | epoch u64 | voter_id u64 | refusal u8 | floor u64 | timeline u64 | lsn u64 | age_us u64
//
// When Refusal is BallotGranted or BallotBetter the voter has made its promise
// durable, and Position was read after that. For the other refusals Position
// means nothing.
type BallotAnswer struct {
	Epoch    Epoch
	VoterID  NodeID
	Refusal  BallotRefusal
	Floor    Epoch    // highest epoch the voter has promised to
	Position Position // the voter's own
	AgeUS    uint64   // µs since the voter last accepted an AppendEntries of an earlier leader; AgeInfinite see there
}

// Granted reports whether the voter granted the ballot.
func (a BallotAnswer) Granted() bool { return a.Refusal == BallotGranted }

// ForwardKind says what a ForwardRequest asks of the Raft leader.
type ForwardKind uint8

// The kinds, with their values on the wire and what the payload is.
const (
	ForwardPropose    ForwardKind = 1 // payload: the canonical command; the reply's payload: the result as JSON
	ForwardReadIndex  ForwardKind = 2 // no payload; the reply's payload: the commit index, u64 LE
	ForwardSwitchover ForwardKind = 3 // payload: the target's node ID, u64 LE, 0 for the best replica
	ForwardProposeIf  ForwardKind = 4 // payload: the revision the key must have, u64 LE, and a canonical KvWrite; the reply's as of ForwardPropose
)

// ForwardRequest asks the receiver, as Raft leader, to do something for a
// client of the sender. It is answered by ForwardReply and never forwarded
// again.
//
//	0x22 | kind u8 | timeout_us u64 | payload (the rest)
type ForwardRequest struct {
	Kind      ForwardKind
	TimeoutUS uint64 // how long the sender will wait, µs
	Payload   []byte
}

// ForwardStatus is the outcome of a ForwardRequest.
type ForwardStatus uint8

// The outcomes, with their values on the wire.
const (
	ForwardOK        ForwardStatus = 0
	ForwardNotLeader ForwardStatus = 1 // nothing was done; try the leader
	ForwardNoQuorum  ForwardStatus = 2 // nothing is known to have been done
	ForwardUnknown   ForwardStatus = 3 // it may or may not happen yet
	ForwardRefused   ForwardStatus = 4 // it was understood and refused; payload: the reason as UTF-8
	ForwardDiffers   ForwardStatus = 5 // nothing was done, the key has another revision; payload: that one, u64 LE
)

// ForwardReply answers a ForwardRequest.
//
//	0x23 | status u8 | payload (the rest)
type ForwardReply struct {
	Status  ForwardStatus
	Payload []byte
}

// Ack acknowledges a message that wants no other answer.
//
//	0x24 | epoch u64 | node_id u64
type Ack struct {
	Epoch  Epoch // the sender's floor
	NodeID NodeID
}

// Tag returns TagHeartbeat. The methods below return each type's own tag.
func (Heartbeat) Tag() Tag             { return TagHeartbeat }
func (HeartbeatAck) Tag() Tag          { return TagHeartbeatAck }
func (VoteRequest) Tag() Tag           { return TagVoteRequest }
func (VoteResponse) Tag() Tag          { return TagVoteResponse }
func (PromoteNotify) Tag() Tag         { return TagPromoteNotify }
func (DemoteRequest) Tag() Tag         { return TagDemoteRequest }
func (AppendEntries) Tag() Tag         { return TagAppendEntries }
func (AppendEntriesResponse) Tag() Tag { return TagAppendEntriesResponse }
func (BallotRequest) Tag() Tag         { return TagBallotRequest }
func (BallotAnswer) Tag() Tag          { return TagBallotAnswer }
func (ForwardRequest) Tag() Tag        { return TagForwardRequest }
func (ForwardReply) Tag() Tag          { return TagForwardReply }
func (Ack) Tag() Tag                   { return TagAck }

// Speaker returns the node that a message speaks for, as the message itself
// says; false if it names none. A message whose speaker is not the node it
// came from is a lie.
func Speaker(m Message) (id NodeID, ok bool) {
	switch m := m.(type) {
	case Heartbeat:
		return m.NodeID, true
	case HeartbeatAck:
		return m.NodeID, true
	case VoteRequest:
		return m.CandidateID, true
	case VoteResponse:
		return m.VoterID, true
	case BallotRequest:
		return m.CandidateID, true
	case BallotAnswer:
		return m.VoterID, true
	case Ack:
		return m.NodeID, true
	}
	return NoNode, false
}
