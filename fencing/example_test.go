package fencing_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/aiondb/aiondb-ha/fencing"
)

func ExampleGuard() {
	began := time.Now()
	guard := fencing.NewGuard(func() time.Duration { return time.Since(began) })

	// The node wins epoch 7.
	if err := guard.Open(7); err != nil {
		fmt.Println(err)
	}
	guard.Extend(7, fencing.NoDeadline)
	fmt.Println("acknowledge:", guard.Check(7))

	// A ballot of epoch 8 arrives: the guard closes before it is answered.
	guard.CloseBelow(8, errors.New("ballot of epoch 8"))
	fmt.Println("acknowledge:", guard.Check(7))
	fmt.Println("again:", guard.Open(7))
	// Output:
	// acknowledge: <nil>
	// acknowledge: not primary
	// again: not primary: epoch 7 is closed: ballot of epoch 8
}

// How a database's answer says how long it is valid, and its client sees that
// it comes too late.
func ExampleValidFor() {
	var clock time.Duration // by hand, of both
	guard := fencing.NewGuard(func() time.Duration { return clock })
	if err := guard.Open(7); err != nil {
		fmt.Println(err)
	}
	guard.Extend(7, 250*time.Millisecond)

	sent := clock
	serve := func() time.Duration {
		arrived := guard.Now()
		clock += 10 * time.Millisecond // the work
		until, err := guard.CheckUntil(7)
		if err != nil {
			return 0 // no answer
		}
		return fencing.ValidFor(arrived, guard.Now(), until)
	}
	valid := serve()
	fmt.Println("valid for", valid)
	clock += 400 * time.Millisecond // the process is stopped before the answer has left
	if clock-sent > valid {
		fmt.Println("came too late: unknown outcome")
	}
	// Output:
	// valid for 249ms
	// came too late: unknown outcome
}

func ExampleFloor() {
	dir, err := os.MkdirTemp("", "floor")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	floor, err := fencing.OpenFloor(filepath.Join(dir, "fencing.json"))
	if err != nil {
		fmt.Println(err)
		return
	}
	now := time.Now()
	fmt.Println("new node:", floor.Missing(), floor.Create(now))
	fmt.Println(floor.Promise(8, 2, now))
	fmt.Println(floor.Promise(8, 3, now))
	fmt.Println(floor.Promise(7, 2, now))
	// Output:
	// new node: true <nil>
	// <nil>
	// stale epoch: epoch 8 for node 3, while epoch 8 is promised to node 2
	// stale epoch: epoch 7 for node 2, while epoch 8 is promised to node 2
}
