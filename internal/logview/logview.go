// Package logview writes Raft log entries for people: one JSON object a line,
// with the payload spelled out where it is known. It is not the format of the
// log on disk and not made to be read back.
//
//	{"index":1,"term":1,"type":"configuration","servers":[{"id":"1","address":"…","suffrage":"Voter"}]}
//	{"index":2,"term":1,"type":"noop"}
//	{"index":3,"term":1,"type":"command","command":{"KvWrite":{"key":"lock","value":"node-1"}},"at":"…"}
//	{"index":4,"term":1,"type":"command","data":"base64"}
package logview

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/fsm/command"
)

// Append appends the line of an entry, without a newline, and returns the
// extended slice. Any entry has one; none makes it fail.
func Append(dst []byte, l *raft.Log) []byte {
	dst = append(dst, `{"index":`...)
	dst = strconv.AppendUint(dst, l.Index, 10)
	dst = append(dst, `,"term":`...)
	dst = strconv.AppendUint(dst, l.Term, 10)
	dst = append(dst, `,"type":"`...)
	dst = append(dst, typeName(l.Type)...)
	dst = append(dst, '"')
	dst = appendPayload(dst, l)
	if len(l.Extensions) > 0 {
		dst = append(dst, `,"extensions":`...)
		dst = appendJSON(dst, base64.StdEncoding.EncodeToString(l.Extensions))
	}
	if !l.AppendedAt.IsZero() {
		dst = append(dst, `,"at":`...)
		dst = appendJSON(dst, l.AppendedAt.Format(time.RFC3339Nano))
	}
	return append(dst, '}')
}

func typeName(t raft.LogType) string {
	switch t {
	case raft.LogCommand:
		return "command"
	case raft.LogNoop:
		return "noop"
	case raft.LogBarrier:
		return "barrier"
	case raft.LogConfiguration:
		return "configuration"
	}
	return t.String()
}

func appendPayload(dst []byte, l *raft.Log) []byte {
	switch l.Type {
	case raft.LogConfiguration:
		if conf, err := decodeConfiguration(l.Data); err == nil {
			return appendServers(dst, conf)
		}
	case raft.LogCommand:
		if c, err := command.Decode(l.Data); err == nil {
			return appendCommand(dst, c)
		}
	}
	if len(l.Data) == 0 {
		return dst
	}
	dst = append(dst, `,"data":`...)
	return appendJSON(dst, base64.StdEncoding.EncodeToString(l.Data))
}

// decodeConfiguration is raft.DecodeConfiguration for bytes that may be
// anything: that one panics on what it cannot read.
func decodeConfiguration(data []byte) (conf raft.Configuration, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("not a configuration: %v", r)
		}
	}()
	return raft.DecodeConfiguration(data), nil
}

type server struct {
	ID       string `json:"id"`
	Address  string `json:"address"`
	Suffrage string `json:"suffrage"`
}

func appendServers(dst []byte, conf raft.Configuration) []byte {
	servers := make([]server, 0, len(conf.Servers))
	for _, s := range conf.Servers {
		servers = append(servers, server{ID: string(s.ID), Address: string(s.Address), Suffrage: s.Suffrage.String()})
	}
	dst = append(dst, `,"servers":`...)
	return appendJSON(dst, servers)
}

// appendCommand writes a command in its canonical form, but the byte strings of
// a KvWrite as text.
func appendCommand(dst []byte, c command.Command) []byte {
	dst = append(dst, `,"command":`...)
	kv, ok := c.(command.KvWrite)
	if !ok {
		text, err := command.Encode(c)
		if err != nil { // it was decoded, so it has an encoding
			text = []byte(`null`)
		}
		return append(dst, text...)
	}
	dst = append(dst, `{"KvWrite":{"key":`...)
	dst = appendText(dst, kv.Key)
	dst = append(dst, `,"value":`...)
	if kv.Delete {
		dst = append(dst, `null`...)
	} else {
		dst = appendText(dst, kv.Value)
	}
	return append(dst, `}}`...)
}

// appendText writes bytes as a string if they are printable text, and as
// {"base64":…} otherwise.
func appendText(dst, b []byte) []byte {
	if printable(b) {
		return appendJSON(dst, string(b))
	}
	dst = append(dst, `{"base64":`...)
	dst = appendJSON(dst, base64.StdEncoding.EncodeToString(b))
	return append(dst, '}')
}

func printable(b []byte) bool {
	if !utf8.Valid(b) {
		return false
	}
	for _, r := range string(b) {
		if !unicode.IsPrint(r) && r != '\n' && r != '\t' {
			return false
		}
	}
	return true
}

// appendJSON appends a value of ours; strings that are not UTF-8 are mended.
func appendJSON(dst []byte, v any) []byte {
	text, err := json.Marshal(v)
	if err != nil { // only strings and slices of them come here
		return append(dst, `null`...)
	}
	return append(dst, text...)
}
