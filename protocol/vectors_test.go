package protocol

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"reflect"
	"testing"
	"testing/iotest"
)

// vector is a line of the files in testdata/interop, which the original wrote,
// and of those in testdata/own, which were made from the tables of DESIGN.md by
// other code than this package's.
type vector struct {
	Case      string          `json:"case"`
	Message   json.RawMessage `json:"message"`
	RawHex    string          `json:"raw_hex"`
	SecretHex string          `json:"secret_hex"`
	FrameHex  string          `json:"frame_hex"`
}

func readVectors(t testing.TB, path string, atLeast int) []vector {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []vector
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var v vector
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			t.Fatalf("%s: line %d: %v", path, len(all)+1, err)
		}
		all = append(all, v)
	}
	if lines.Err() != nil || len(all) < atLeast {
		t.Fatalf("%s: %d vectors, want at least %d (%v)", path, len(all), atLeast, lines.Err())
	}
	return all
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// message builds the message a vector describes, field by field.
func (v vector) message(t testing.TB) Message {
	t.Helper()
	var f struct {
		Type           string   `json:"type"`
		Epoch          Epoch    `json:"epoch"`
		NodeID         NodeID   `json:"node_id"`
		WALLSN         LSN      `json:"wal_lsn"`
		Role           NodeRole `json:"role"`
		TimestampUS    uint64   `json:"timestamp_us"`
		CandidateID    NodeID   `json:"candidate_id"`
		LastLSN        LSN      `json:"last_lsn"`
		VoterID        NodeID   `json:"voter_id"`
		Granted        bool     `json:"granted"`
		VoterLSN       LSN      `json:"voter_lsn"`
		NewPrimaryID   NodeID   `json:"new_primary_id"`
		NewPrimaryAddr string   `json:"new_primary_addr"`
		TargetID       NodeID   `json:"target_id"`
		PayloadUTF8    string   `json:"payload_utf8"`

		Timeline   Epoch         `json:"timeline"`
		LSN        LSN           `json:"lsn"`
		Refusal    BallotRefusal `json:"refusal"`
		Floor      Epoch         `json:"floor"`
		AgeUS      uint64        `json:"age_us"`
		Kind       ForwardKind   `json:"kind"`
		TimeoutUS  uint64        `json:"timeout_us"`
		Status     ForwardStatus `json:"status"`
		PayloadHex string        `json:"payload_hex"`
	}
	d := json.NewDecoder(bytes.NewReader(v.Message))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		t.Fatalf("message %s: %v", v.Message, err)
	}
	position := Position{f.Timeline, f.LSN}
	switch f.Type {
	case "Heartbeat":
		return Heartbeat{f.Epoch, f.NodeID, f.WALLSN, f.Role, f.TimestampUS}
	case "HeartbeatAck":
		return HeartbeatAck{f.Epoch, f.NodeID, f.WALLSN}
	case "VoteRequest":
		return VoteRequest{f.Epoch, f.CandidateID, f.LastLSN}
	case "VoteResponse":
		return VoteResponse{f.Epoch, f.VoterID, f.Granted, f.VoterLSN}
	case "PromoteNotify":
		return PromoteNotify{f.Epoch, f.NewPrimaryID, f.NewPrimaryAddr}
	case "DemoteRequest":
		return DemoteRequest{f.Epoch, f.TargetID}
	case "AppendEntries":
		return AppendEntries{rest([]byte(f.PayloadUTF8))}
	case "AppendEntriesResponse":
		return AppendEntriesResponse{rest([]byte(f.PayloadUTF8))}
	case "BallotRequest":
		return BallotRequest{f.Epoch, f.CandidateID, position}
	case "BallotAnswer":
		return BallotAnswer{f.Epoch, f.VoterID, f.Refusal, f.Floor, position, f.AgeUS}
	case "ForwardRequest":
		return ForwardRequest{f.Kind, f.TimeoutUS, rest(unhex(t, f.PayloadHex))}
	case "ForwardReply":
		return ForwardReply{f.Status, rest(unhex(t, f.PayloadHex))}
	case "Ack":
		return Ack{f.Epoch, f.NodeID}
	}
	t.Fatalf("message of type %q", f.Type)
	return nil
}

func TestVectors(t *testing.T) {
	tags := make(map[Tag]int)
	for path, atLeast := range map[string]int{"testdata/interop/frames.jsonl": 16, "testdata/own/frames.jsonl": 21} {
		for i, v := range readVectors(t, path, atLeast) {
			want, raw := v.message(t), unhex(t, v.RawHex)
			secret, frame := unhex(t, v.SecretHex), unhex(t, v.FrameHex)
			tags[want.Tag()]++
			check := func(how string, got Message, err error) {
				t.Helper()
				if err != nil || !reflect.DeepEqual(got, want) {
					t.Errorf("%s: line %d: %s\n got %+v, %v\nwant %+v", path, i+1, how, got, err, want)
				}
			}
			got, err := Decode(raw)
			check("Decode", got, err)
			got, err = DecodeAuthenticated(frame, secret)
			check("DecodeAuthenticated", got, err)
			got, err = ReadFrame(iotest.OneByteReader(bytes.NewReader(frame)), secret)
			check("ReadFrame", got, err)

			if b, err := Encode(want); err != nil || !bytes.Equal(b, raw) {
				t.Errorf("%s: line %d: Encode\n got %x, %v\nwant %x", path, i+1, b, err, raw)
			}
			if b, err := EncodeAuthenticated(want, secret); err != nil || !bytes.Equal(b, frame) {
				t.Errorf("%s: line %d: EncodeAuthenticated\n got %x, %v\nwant %x", path, i+1, b, err, frame)
			}
		}
	}
	for tag := range Tag(255) {
		if _, _, known := payloadBounds(tag); known && tags[tag] == 0 {
			t.Errorf("no vector for tag 0x%02x", uint8(tag))
		}
	}
}

// A hostile frame is refused by both decoders, with one of the three errors
// that say so. To a stream decoder "trailing byte" is a good frame and the
// beginning of the next one, which is cut off.
func TestHostileVectors(t *testing.T) {
	for path, atLeast := range map[string]int{"testdata/interop/frames_hostile.jsonl": 18, "testdata/own/frames_hostile.jsonl": 28} {
		for _, v := range readVectors(t, path, atLeast) {
			secret, frame := unhex(t, v.SecretHex), unhex(t, v.FrameHex)
			if m, err := DecodeAuthenticated(frame, secret); !isRefusal(err) {
				t.Errorf("%s: %s: DecodeAuthenticated gives %+v, %v", path, v.Case, m, err)
			}
			if len(frame) >= HMACSize && path == "testdata/own/frames_hostile.jsonl" {
				if m, err := Decode(frame[HMACSize:]); !errors.Is(err, ErrMalformed) {
					t.Errorf("%s: %s: Decode gives %+v, %v", path, v.Case, m, err)
				}
			}
			stream := bytes.NewReader(frame)
			m, err := ReadFrame(stream, secret)
			switch {
			case v.Case == "trailing byte":
				if err != nil || stream.Len() != 1 {
					t.Errorf("%s: %s: ReadFrame gives %+v, %v and leaves %d bytes", path, v.Case, m, err, stream.Len())
				}
				if m, err := ReadFrame(stream, secret); !isRefusal(err) {
					t.Errorf("%s: %s: ReadFrame then gives %+v, %v", path, v.Case, m, err)
				}
			case v.Case == "empty":
				if err != io.EOF {
					t.Errorf("%s: %s: ReadFrame gives %+v, %v, want io.EOF", path, v.Case, m, err)
				}
			case !isRefusal(err):
				t.Errorf("%s: %s: ReadFrame gives %+v, %v", path, v.Case, m, err)
			}
		}
	}
}

func isRefusal(err error) bool {
	return errors.Is(err, ErrMalformed) || errors.Is(err, ErrBadHMAC) || errors.Is(err, ErrShortSecret)
}
