package protocol

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"
)

// Limits of the wire, in bytes.
const (
	// HeaderSize is the size of the tag and the payload length in front of
	// every payload.
	HeaderSize = 5
	// MaxPayload bounds the payload of any message.
	MaxPayload = 8 << 20
	// MaxRaftPayload bounds the payload of AppendEntries and
	// AppendEntriesResponse.
	MaxRaftPayload = 1 << 20
	// MaxAddrLen bounds an address.
	MaxAddrLen = 512
	// MaxForwardPayload bounds the payload of a ForwardRequest, which shares
	// MaxPayload with the fields in front of it.
	MaxForwardPayload = MaxPayload - forwardRequestFixed
	// MaxReplyPayload bounds the payload of a ForwardReply likewise.
	MaxReplyPayload = MaxPayload - forwardReplyFixed
)

// The sizes of the fields that stand in front of a payload's variable part.
const (
	promoteNotifyFixed  = 8 + 8 + 4
	forwardRequestFixed = 1 + 8
	forwardReplyFixed   = 1
)

// ErrMalformed is wrapped by every error about bytes that are no message, and
// by every error about a message that has no bytes.
var ErrMalformed = errors.New("malformed message")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
}

// payloadBounds returns the smallest and largest payload a tag may have, in
// bytes. They are all that is believed of a frame before its HMAC is checked.
func payloadBounds(t Tag) (low, high int, ok bool) {
	fixed := func(n int) (int, int, bool) { return n, n, true }
	switch t {
	case TagHeartbeat:
		return fixed(4*8 + 1)
	case TagHeartbeatAck, TagVoteRequest:
		return fixed(3 * 8)
	case TagVoteResponse:
		return fixed(3*8 + 1)
	case TagPromoteNotify:
		return promoteNotifyFixed, promoteNotifyFixed + MaxAddrLen, true
	case TagDemoteRequest, TagAck:
		return fixed(2 * 8)
	case TagAppendEntries, TagAppendEntriesResponse:
		return 0, MaxRaftPayload, true
	case TagBallotRequest:
		return fixed(4 * 8)
	case TagBallotAnswer:
		return fixed(6*8 + 1)
	case TagForwardRequest:
		return forwardRequestFixed, MaxPayload, true
	case TagForwardReply:
		return forwardReplyFixed, MaxPayload, true
	}
	return 0, 0, false
}

// checkHeader reads tag and payload length and refuses what no message has.
func checkHeader(h []byte) (tag Tag, size int, err error) {
	tag = Tag(h[0])
	n := binary.LittleEndian.Uint32(h[1:HeaderSize])
	if n > MaxPayload {
		return 0, 0, malformed("payload of %d bytes is over the limit of %d", n, MaxPayload)
	}
	low, high, ok := payloadBounds(tag)
	if !ok {
		return 0, 0, malformed("unknown tag 0x%02x", uint8(tag))
	}
	if size = int(n); size < low || size > high {
		return 0, 0, malformed("tag 0x%02x with a payload of %d bytes, want %d to %d", uint8(tag), n, low, high)
	}
	return tag, size, nil
}

// Encode returns tag, payload length and payload of m in a slice of the
// caller's own. A message that Decode would refuse is an error wrapping
// ErrMalformed, and so is nil or a pointer.
func Encode(m Message) ([]byte, error) { return appendMessage(nil, m) }

// appendMessage appends the encoding of m to dst.
func appendMessage(dst []byte, m Message) ([]byte, error) {
	if err := check(m); err != nil {
		return nil, err
	}
	start := len(dst)
	if dst == nil {
		dst = make([]byte, 0, HeaderSize+sizeHint(m))
	}
	dst = append(dst, byte(m.Tag()), 0, 0, 0, 0)
	dst = appendPayload(dst, m)
	binary.LittleEndian.PutUint32(dst[start+1:], uint32(len(dst)-start-HeaderSize))
	return dst, nil
}

// sizeHint returns the payload size of a message that passed check.
func sizeHint(m Message) int {
	low, _, _ := payloadBounds(m.Tag())
	switch m := m.(type) {
	case PromoteNotify:
		return low + len(m.NewPrimaryAddr)
	case AppendEntries:
		return low + len(m.Payload)
	case AppendEntriesResponse:
		return low + len(m.Payload)
	case ForwardRequest:
		return low + len(m.Payload)
	case ForwardReply:
		return low + len(m.Payload)
	}
	return low
}

func appendPayload(dst []byte, m Message) []byte {
	switch m := m.(type) {
	case Heartbeat:
		dst = putU64(dst, uint64(m.Epoch), uint64(m.NodeID), uint64(m.WALLSN))
		return putU64(append(dst, byte(m.Role)), m.TimestampUS)
	case HeartbeatAck:
		return putU64(dst, uint64(m.Epoch), uint64(m.NodeID), uint64(m.WALLSN))
	case VoteRequest:
		return putU64(dst, uint64(m.Epoch), uint64(m.CandidateID), uint64(m.LastLSN))
	case VoteResponse:
		dst = putU64(dst, uint64(m.Epoch), uint64(m.VoterID))
		return putU64(append(dst, flag(m.Granted)), uint64(m.VoterLSN))
	case PromoteNotify:
		dst = putU64(dst, uint64(m.Epoch), uint64(m.NewPrimaryID))
		dst = binary.LittleEndian.AppendUint32(dst, uint32(len(m.NewPrimaryAddr)))
		return append(dst, m.NewPrimaryAddr...)
	case DemoteRequest:
		return putU64(dst, uint64(m.Epoch), uint64(m.TargetID))
	case AppendEntries:
		return append(dst, m.Payload...)
	case AppendEntriesResponse:
		return append(dst, m.Payload...)
	case BallotRequest:
		return putU64(dst, uint64(m.Epoch), uint64(m.CandidateID), uint64(m.Position.Timeline), uint64(m.Position.LSN))
	case BallotAnswer:
		dst = append(putU64(dst, uint64(m.Epoch), uint64(m.VoterID)), byte(m.Refusal))
		return putU64(dst, uint64(m.Floor), uint64(m.Position.Timeline), uint64(m.Position.LSN), m.AgeUS)
	case ForwardRequest:
		return append(putU64(append(dst, byte(m.Kind)), m.TimeoutUS), m.Payload...)
	case ForwardReply:
		return append(append(dst, byte(m.Status)), m.Payload...)
	case Ack:
		return putU64(dst, uint64(m.Epoch), uint64(m.NodeID))
	}
	return dst
}

func putU64(dst []byte, fields ...uint64) []byte {
	for _, f := range fields {
		dst = binary.LittleEndian.AppendUint64(dst, f)
	}
	return dst
}

func flag(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// Decode reads one whole encoded message and nothing else: bytes behind it are
// refused. It returns the value type (Heartbeat, not *Heartbeat). A payload
// slice of the message is part of raw, not a copy; an empty one is nil. Every
// error wraps ErrMalformed. Decode(raw) succeeds exactly for what Encode gives.
func Decode(raw []byte) (Message, error) {
	if len(raw) < HeaderSize {
		return nil, malformed("%d bytes, shorter than the header of %d", len(raw), HeaderSize)
	}
	tag, size, err := checkHeader(raw)
	if err != nil {
		return nil, err
	}
	payload := raw[HeaderSize:]
	if len(payload) != size {
		return nil, malformed("payload of %d bytes announced, %d there", size, len(payload))
	}
	m, err := decodePayload(tag, payload)
	if err != nil {
		return nil, err
	}
	if err := check(m); err != nil {
		return nil, err
	}
	return m, nil
}

// decodePayload relies on checkHeader for the payload's size.
func decodePayload(tag Tag, p []byte) (Message, error) {
	u64 := func(at int) uint64 { return binary.LittleEndian.Uint64(p[at:]) }
	switch tag {
	case TagHeartbeat:
		return Heartbeat{Epoch(u64(0)), NodeID(u64(8)), LSN(u64(16)), NodeRole(p[24]), u64(25)}, nil
	case TagHeartbeatAck:
		return HeartbeatAck{Epoch(u64(0)), NodeID(u64(8)), LSN(u64(16))}, nil
	case TagVoteRequest:
		return VoteRequest{Epoch(u64(0)), NodeID(u64(8)), LSN(u64(16))}, nil
	case TagVoteResponse:
		if p[16] > 1 {
			return nil, malformed("vote response with granted flag %d, want 0 or 1", p[16])
		}
		return VoteResponse{Epoch(u64(0)), NodeID(u64(8)), p[16] == 1, LSN(u64(17))}, nil
	case TagPromoteNotify:
		n := binary.LittleEndian.Uint32(p[16:])
		addr := p[promoteNotifyFixed:]
		if uint64(n) != uint64(len(addr)) {
			return nil, malformed("promote notify with an address of %d bytes announced, %d there", n, len(addr))
		}
		return PromoteNotify{Epoch(u64(0)), NodeID(u64(8)), string(addr)}, nil
	case TagDemoteRequest:
		return DemoteRequest{Epoch(u64(0)), NodeID(u64(8))}, nil
	case TagAppendEntries:
		return AppendEntries{rest(p)}, nil
	case TagAppendEntriesResponse:
		return AppendEntriesResponse{rest(p)}, nil
	case TagBallotRequest:
		return BallotRequest{Epoch(u64(0)), NodeID(u64(8)), Position{Epoch(u64(16)), LSN(u64(24))}}, nil
	case TagBallotAnswer:
		return BallotAnswer{
			Epoch: Epoch(u64(0)), VoterID: NodeID(u64(8)), Refusal: BallotRefusal(p[16]), Floor: Epoch(u64(17)),
			Position: Position{Epoch(u64(25)), LSN(u64(33))}, AgeUS: u64(41),
		}, nil
	case TagForwardRequest:
		return ForwardRequest{ForwardKind(p[0]), u64(1), rest(p[forwardRequestFixed:])}, nil
	case TagForwardReply:
		return ForwardReply{ForwardStatus(p[0]), rest(p[forwardReplyFixed:])}, nil
	case TagAck:
		return Ack{Epoch(u64(0)), NodeID(u64(8))}, nil
	}
	return nil, malformed("unknown tag 0x%02x", uint8(tag))
}

// rest returns the variable part of a payload, nil when it is empty, and
// capped so that appending to it cannot reach what lies behind.
func rest(p []byte) []byte {
	if len(p) == 0 {
		return nil
	}
	return p[:len(p):len(p)]
}

// check holds the rules both directions share: what it accepts can be encoded,
// and what was decoded must pass it.
func check(m Message) error {
	switch m := m.(type) {
	case HeartbeatAck, VoteRequest, VoteResponse, DemoteRequest, BallotRequest, Ack:
		return nil
	case Heartbeat:
		if !m.Role.Valid() {
			return malformed("heartbeat with unknown role %d", uint8(m.Role))
		}
	case PromoteNotify:
		if len(m.NewPrimaryAddr) > MaxAddrLen {
			return malformed("promote notify with an address of %d bytes, over the limit of %d", len(m.NewPrimaryAddr), MaxAddrLen)
		}
		if !utf8.ValidString(m.NewPrimaryAddr) {
			return malformed("promote notify with an address that is not UTF-8")
		}
	case AppendEntries:
		return checkLen("append entries", m.Payload, MaxRaftPayload)
	case AppendEntriesResponse:
		return checkLen("append entries response", m.Payload, MaxRaftPayload)
	case BallotAnswer:
		if m.Refusal > BallotUnavailable {
			return malformed("ballot answer with unknown reason %d", uint8(m.Refusal))
		}
	case ForwardRequest:
		return checkForward(m)
	case ForwardReply:
		if m.Status > ForwardDiffers {
			return malformed("forward reply with unknown status %d", uint8(m.Status))
		}
		if m.Status == ForwardRefused && !utf8.Valid(m.Payload) {
			return malformed("forward reply with a reason that is not UTF-8")
		}
		if m.Status == ForwardDiffers && len(m.Payload) != 8 {
			return malformed("forward reply with a revision of %d bytes, want 8", len(m.Payload))
		}
		return checkLen("forward reply", m.Payload, MaxReplyPayload)
	default:
		return malformed("%T is no message", m)
	}
	return nil
}

func checkForward(m ForwardRequest) error {
	switch m.Kind {
	case ForwardPropose:
		if len(m.Payload) == 0 {
			return malformed("forward request proposes nothing")
		}
		return checkLen("forward request", m.Payload, MaxForwardPayload)
	case ForwardReadIndex:
		return checkLen("read index request", m.Payload, 0)
	case ForwardSwitchover:
		if len(m.Payload) != 8 {
			return malformed("switchover request with a payload of %d bytes, want 8", len(m.Payload))
		}
		return nil
	case ForwardProposeIf:
		if len(m.Payload) <= 8 {
			return malformed("forward request with %d bytes for a revision and what to propose", len(m.Payload))
		}
		return checkLen("forward request", m.Payload, MaxForwardPayload)
	}
	return malformed("forward request of unknown kind %d", uint8(m.Kind))
}

func checkLen(what string, payload []byte, limit int) error {
	if len(payload) > limit {
		return malformed("%s with a payload of %d bytes, over the limit of %d", what, len(payload), limit)
	}
	return nil
}
