package fencing

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"

	"github.com/aiondb/aiondb-ha/protocol"
)

// Token is a promise: the node that holds the file takes part in nothing of an
// epoch below Epoch, and in Epoch itself only on the side of NodeID.
type Token struct {
	Epoch       protocol.Epoch  `json:"epoch"`
	NodeID      protocol.NodeID `json:"node_id"`      // to whom the epoch is promised; NoNode in the token of epoch 0
	TimestampUS uint64          `json:"timestamp_us"` // wall clock at the promise, µs since 1970; for people, never for a decision
}

// MaxTokenBytes is the greatest size of a token file. A genuine one has about
// a hundred bytes.
const MaxTokenBytes = 4096

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const crcField = `,"crc":"`

// appendToken writes t as one line of JSON: AionDB's three fields, which its
// reader takes as they are, and behind them the CRC-32C of the bytes before it.
//
//	{"epoch":3,"node_id":42,"timestamp_us":1795349398708875,"crc":"0a1b2c3d"}
func appendToken(dst []byte, t Token) []byte {
	start := len(dst)
	dst = append(dst, `{"epoch":`...)
	dst = strconv.AppendUint(dst, uint64(t.Epoch), 10)
	dst = append(dst, `,"node_id":`...)
	dst = strconv.AppendUint(dst, uint64(t.NodeID), 10)
	dst = append(dst, `,"timestamp_us":`...)
	dst = strconv.AppendUint(dst, t.TimestampUS, 10)
	sum := crc32.Checksum(dst[start:], castagnoli)
	return fmt.Appendf(dst, "%s%08x\"}\n", crcField, sum)
}

// parseToken reads what appendToken or AionDB wrote. It takes no field twice,
// none it does not know and nothing behind the object: a promise is either
// understood completely or not at all.
func parseToken(raw []byte) (Token, error) {
	if len(bytes.TrimSpace(raw)) == 0 {
		return Token{}, errors.New("it is empty")
	}
	if len(raw) > MaxTokenBytes {
		return Token{}, fmt.Errorf("it is longer than %d bytes", MaxTokenBytes)
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if tok, err := dec.Token(); err != nil {
		return Token{}, notJSON(err)
	} else if tok != json.Delim('{') {
		return Token{}, errors.New("it does not hold a JSON object")
	}
	numbers := map[string]uint64{}
	sum, summed := "", false
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return Token{}, notJSON(err)
		}
		value, err := dec.Token()
		if err != nil {
			return Token{}, notJSON(err)
		}
		switch name := key.(string); name {
		case "epoch", "node_id", "timestamp_us":
			if _, twice := numbers[name]; twice {
				return Token{}, fmt.Errorf("field %q is there twice", name)
			}
			number, isNumber := value.(json.Number)
			n, err := strconv.ParseUint(number.String(), 10, 64)
			if !isNumber || err != nil {
				return Token{}, fmt.Errorf("field %q is not a whole number of 64 bits", name)
			}
			numbers[name] = n
		case "crc":
			text, isText := value.(string)
			if !isText || summed {
				return Token{}, errors.New(`field "crc" is not one string`)
			}
			sum, summed = text, true
		default:
			return Token{}, fmt.Errorf("field %q is unknown; it may come from a newer version", name)
		}
	}
	if _, err := dec.Token(); err != nil {
		return Token{}, notJSON(err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return Token{}, errors.New("something follows the JSON object")
	}
	for _, name := range []string{"epoch", "node_id", "timestamp_us"} {
		if _, there := numbers[name]; !there {
			return Token{}, fmt.Errorf("field %q is missing", name)
		}
	}
	if summed {
		covered := raw[:max(0, bytes.LastIndex(raw, []byte(crcField)))]
		if want := fmt.Sprintf("%08x", crc32.Checksum(covered, castagnoli)); sum != want {
			return Token{}, fmt.Errorf("its checksum is %q and should be %q", sum, want)
		}
	}
	t := Token{
		Epoch:       protocol.Epoch(numbers["epoch"]),
		NodeID:      protocol.NodeID(numbers["node_id"]),
		TimestampUS: numbers["timestamp_us"],
	}
	if t.Epoch != 0 && t.NodeID == protocol.NoNode {
		return Token{}, fmt.Errorf("epoch %d is promised to node 0, which is nobody", t.Epoch)
	}
	return t, nil
}

func notJSON(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("it ends in the middle of a JSON object")
	}
	return fmt.Errorf("it is not JSON (%w)", err)
}
