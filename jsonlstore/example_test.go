package jsonlstore_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/jsonlstore"
)

// A store is both the LogStore and the StableStore of raft.NewRaft.
func Example() {
	dir, err := os.MkdirTemp("", "jsonlstore")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)

	store, err := jsonlstore.Open(filepath.Join(dir, "node-1"))
	if err != nil {
		log.Fatal(err)
	}
	err = store.StoreLogs([]*raft.Log{
		{Index: 1, Term: 1, Data: []byte(`{"RemoveNode":{"node_id":3}}`)},
		{Index: 2, Term: 1, Data: []byte("anything at all")},
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := store.Close(); err != nil {
		log.Fatal(err)
	}

	text, err := os.ReadFile(filepath.Join(dir, "node-1", jsonlstore.LogFile))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s", text)
	// Output:
	// {"index":1,"term":1,"command":{"RemoveNode":{"node_id":3}},"crc":"896ec70c"}
	// {"index":2,"term":1,"command":"Noop","type":"command","data":"YW55dGhpbmcgYXQgYWxs","batch":1,"crc":"c65cb79c"}
}

// Verify looks at a directory without opening it: beside a running node, or
// when the node refuses to start.
func ExampleVerify() {
	dir, err := os.MkdirTemp("", "jsonlstore")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	lines := `{"index":7,"term":2,"command":"Noop"}
{"index":9,"term":2,"command":"Noop"}
`
	if err := os.WriteFile(filepath.Join(dir, jsonlstore.LogFile), []byte(lines), 0o600); err != nil {
		log.Fatal(err)
	}

	report, err := jsonlstore.Verify(dir)
	if err != nil {
		log.Fatal(err)
	}
	for _, d := range report.Damage {
		fmt.Printf("line %d, byte offset %d, index %d: %s\n", d.Line, d.Offset, d.Index, d.Reason)
	}
	// Output:
	// line 2, byte offset 38, index 8: log entries are not contiguous: expected index 8, given 9
}
