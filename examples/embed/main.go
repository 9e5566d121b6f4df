// Command embed is the smallest database that aiondb-ha can drive: a file of
// lines. It replicates nothing, so it only shows which call comes when; a real
// database streams its WAL from the primary to the replicas.
//
//	aiondb-ha token -o secret
//	go run ./examples/embed 1 127.0.0.1:7601,127.0.0.1:7602,127.0.0.1:7603 secret dir1
//
// and the same for 2 and 3, in terminals of their own.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"

	"github.com/aiondb/aiondb-ha"
	"github.com/aiondb/aiondb-ha/protocol"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "embed:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 4 {
		return errors.New("usage: embed NODE-ID HOST:PORT,HOST:PORT,... SECRET-FILE DIR")
	}
	id, err := protocol.ParseNodeID(args[0])
	if err != nil {
		return err
	}
	secret, err := os.ReadFile(args[2])
	if err != nil {
		return err
	}
	db, err := openLines(args[3])
	if err != nil {
		return err
	}
	defer db.file.Close()

	node, err := ha.Open(ctx, ha.Config{
		NodeID:  id,
		Nodes:   strings.Split(args[1], ","),
		Secret:  ha.NewSecret(bytes.TrimSpace(secret)),
		DataDir: args[3],
	}, db)
	if err != nil {
		return err
	}
	fmt.Printf("node %s runs; Ctrl-C hands over and ends it\n", node.ID())
	<-ctx.Done()
	return node.Close()
}

// lines is a database of lines. Its LSN counts them.
type lines struct {
	mu       sync.Mutex
	file     *os.File
	position protocol.Position
	floor    protocol.Epoch
	primary  *ha.Promotion // nil on a replica
}

func openLines(dir string) (*lines, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "lines")
	content, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	db := &lines{}
	for line := range strings.Lines(string(content)) {
		if _, err := fmt.Sscanf(line, "%d", &db.position.Timeline); err != nil {
			return nil, fmt.Errorf("%s: line %d: %w", path, db.position.LSN+1, err)
		}
		db.position.LSN++
	}
	db.file, err = os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	return db, err
}

// Write adds a line, and returns nil only if this node may acknowledge it. A
// real database waits for a quorum of the nodes before it asks the guard.
func (db *lines) Write(text string) error {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.primary == nil {
		return ha.ErrNotPrimary
	}
	if _, err := fmt.Fprintf(db.file, "%d %q\n", db.primary.Epoch, text); err != nil {
		return err
	}
	if err := db.file.Sync(); err != nil {
		return err
	}
	db.position.Timeline = db.primary.Epoch
	db.position.LSN++
	return db.primary.Guard.Check(db.primary.Epoch)
}

// Position implements ha.Database.
func (db *lines) Position(context.Context) (protocol.Position, error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.position, nil
}

// Fence implements ha.Database.
func (db *lines) Fence(_ context.Context, epoch protocol.Epoch) error {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.floor = max(db.floor, epoch)
	if db.primary != nil && db.primary.Epoch < db.floor {
		db.primary = nil
	}
	return nil
}

// Promote implements ha.Database.
func (db *lines) Promote(_ context.Context, p ha.Promotion) error {
	db.mu.Lock()
	defer db.mu.Unlock()
	if p.Epoch < db.floor {
		return fmt.Errorf("epoch %d is over: %d is promised", p.Epoch, db.floor)
	}
	db.primary = &p
	fmt.Printf("primary of epoch %d\n", p.Epoch)
	return nil
}

// Demote implements ha.Database.
func (db *lines) Demote(_ context.Context, d ha.Demotion) error {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.primary = nil
	if d.Primary == protocol.NoNode {
		fmt.Println("replica; no primary yet")
	} else {
		fmt.Printf("replica of node %s at %s, epoch %d\n", d.Primary, d.Address, d.Epoch)
	}
	return nil
}
