package jsonlstore_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/hashicorp/raft"

	"github.com/aiondb/aiondb-ha/jsonlstore"
)

// A program that watches the log of a running node.
func ExampleTail() {
	dir, err := os.MkdirTemp("", "tail")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	s, err := jsonlstore.Open(dir)
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()
	if err := s.StoreLogs([]*raft.Log{{Index: 1, Term: 1}, {Index: 2, Term: 1}, {Index: 3, Term: 1}}); err != nil {
		log.Fatal(err)
	}
	for e, err := range jsonlstore.Tail(context.Background(), dir, jsonlstore.TailOptions{Last: 2}) {
		if err != nil {
			log.Fatal(err)
		}
		if e.Kind == jsonlstore.TailEntry {
			fmt.Println(e.Entry.Index, e.Entry.Type)
		}
	}
	// Output:
	// 2 LogCommand
	// 3 LogCommand
}
