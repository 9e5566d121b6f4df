package logview_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/internal/logview"
	"github.com/aiondb/aiondb-ha/logstore/storetest"
)

func TestAppend(t *testing.T) {
	conf := raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{
		{ID: "1", Address: "10.0.0.1:7600", Suffrage: raft.Voter}, {ID: "2", Address: "10.0.0.2:7600", Suffrage: raft.Nonvoter},
	}})
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	for _, c := range []struct {
		log  raft.Log
		want string
	}{
		{raft.Log{Index: 1, Term: 2, Type: raft.LogNoop}, `{"index":1,"term":2,"type":"noop"}`},
		{raft.Log{Index: 1, Type: raft.LogBarrier, AppendedAt: at}, `{"index":1,"term":0,"type":"barrier","at":"2026-01-02T03:04:05.000000006Z"}`},
		{raft.Log{Index: 1, Term: 2, Type: raft.LogConfiguration, Data: conf}, `{"index":1,"term":2,"type":"configuration","servers":[{"id":"1","address":"10.0.0.1:7600","suffrage":"Voter"},{"id":"2","address":"10.0.0.2:7600","suffrage":"Nonvoter"}]}`},
		{raft.Log{Index: 1, Term: 2, Type: raft.LogConfiguration, Data: []byte{0xc1}}, `{"index":1,"term":2,"type":"configuration","data":"wQ=="}`},
		{raft.Log{Index: 1, Term: 2, Data: []byte(`"Noop"`)}, `{"index":1,"term":2,"type":"command","command":"Noop"}`},
		{raft.Log{Index: 1, Term: 2, Data: []byte(`{"RemoveNode":{"node_id":7}}`)}, `{"index":1,"term":2,"type":"command","command":{"RemoveNode":{"node_id":7}}}`},
		{raft.Log{Index: 1, Term: 2, Data: []byte(`{"KvWrite":{"key":[108,111],"value":[0]}}`)}, `{"index":1,"term":2,"type":"command","command":{"KvWrite":{"key":"lo","value":{"base64":"AA=="}}}}`},
		{raft.Log{Index: 1, Term: 2, Data: []byte(`{"KvWrite":{"key":[],"value":null}}`)}, `{"index":1,"term":2,"type":"command","command":{"KvWrite":{"key":"","value":null}}}`},
		{raft.Log{Index: 1, Term: 2, Data: []byte("{\n\"RemoveNode\": {\"node_id\":7}}")}, `{"index":1,"term":2,"type":"command","command":{"RemoveNode":{"node_id":7}}}`},
		{raft.Log{Index: 1, Term: 2, Data: []byte("hello"), Extensions: []byte("x")}, `{"index":1,"term":2,"type":"command","data":"aGVsbG8=","extensions":"eA=="}`},
		{raft.Log{Index: 1, Term: 2, Type: 77}, `{"index":1,"term":2,"type":"77"}`},
	} {
		if got := string(logview.Append(nil, &c.log)); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

func TestEveryEntryIsValidJSON(t *testing.T) {
	for _, l := range storetest.Samples() {
		if got := logview.Append(nil, l); !json.Valid(got) {
			t.Errorf("entry %d: not JSON: %.200s", l.Index, got)
		}
	}
}
