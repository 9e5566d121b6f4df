package democluster

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/aiondb/aiondb-ha/internal/walplane"
	"github.com/aiondb/aiondb-ha/protocol"
)

const (
	// pollEvery is how often a condition is looked at.
	pollEvery = 15 * time.Millisecond
	// pollTimeout bounds one look: a paused node answers nothing.
	pollTimeout = 400 * time.Millisecond
	// maxAnswer bounds an answer of the API read here, bytes.
	maxAnswer = 1 << 20
	// maxDumpLine bounds a line of a data dump, bytes.
	maxDumpLine = 1 << 20
)

// Status is what the conditions here need of a node's status.
type Status struct {
	NodeID   protocol.NodeID   `json:"node_id"`
	Role     protocol.NodeRole `json:"role"`
	State    string            `json:"state"`
	Epoch    protocol.Epoch    `json:"epoch"`
	Primary  protocol.NodeID   `json:"primary"`
	Position protocol.Position `json:"position"`
	Blocked  string            `json:"blocked"`
}

// APIError is an answer of a node's API that is not a success.
type APIError struct {
	Status  int    `json:"-"`     // of HTTP
	Code    string `json:"code"`  // no_quorum, not_primary, …
	Message string `json:"error"` // for people
}

func (e *APIError) Error() string {
	if e.Message == "" {
		return fmt.Sprintf("HTTP status %d", e.Status)
	}
	return e.Message
}

// get asks a node's API and decodes the answer into v.
func (c *Cluster) call(ctx context.Context, method string, id protocol.NodeID, path string, body, v any) error {
	var send io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return err
		}
		send = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+c.Node(id).APIAddr+path, send)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		apiErr := &APIError{Status: resp.StatusCode}
		_ = json.Unmarshal(raw, apiErr)
		return apiErr
	}
	if v == nil {
		return nil
	}
	return json.Unmarshal(raw, v)
}

// Status asks a node for its status, with a short deadline of its own.
func (c *Cluster) Status(ctx context.Context, id protocol.NodeID) (Status, error) {
	ctx, cancel := context.WithTimeout(ctx, pollTimeout)
	defer cancel()
	var s Status
	err := c.call(ctx, http.MethodGet, id, "/v1/status", nil, &s)
	return s, err
}

// Switchover asks a node to see to it that the primacy moves to the node to.
func (c *Cluster) Switchover(ctx context.Context, via, to protocol.NodeID) error {
	return c.call(ctx, http.MethodPost, via, "/v1/switchover", map[string]protocol.NodeID{"to": to}, nil)
}

// Dump reads all data of a node, which must be the primary: what it holds
// under every key. What is written meanwhile may be in the answer or not.
func (c *Cluster) Dump(ctx context.Context, id protocol.NodeID) (map[string]string, error) {
	return c.dump(ctx, id, "")
}

// DumpStale reads all data of a node, whatever its role: what it knows to be
// committed.
func (c *Cluster) DumpStale(ctx context.Context, id protocol.NodeID) (map[string]string, error) {
	return c.dump(ctx, id, "&stale=true")
}

func (c *Cluster) dump(ctx context.Context, id protocol.NodeID, params string) (map[string]string, error) {
	data := map[string]string{}
	for from, until := uint64(1), uint64(math.MaxUint64); from <= until; {
		next, commit, err := c.dumpPage(ctx, id, from, params, data)
		if err != nil {
			return nil, fmt.Errorf("reading the data of node %d: %w", id, err)
		}
		if next <= from {
			break // an empty page is the end
		}
		from, until = next, min(until, commit)
	}
	return data, nil
}

// dumpPage adds a page of the log of a node to data. It returns where the next
// page begins, no further than from if this one was empty, and how far the log
// reached when it was read.
func (c *Cluster) dumpPage(ctx context.Context, id protocol.NodeID, from uint64, params string, data map[string]string) (next, commit uint64, err error) {
	url := fmt.Sprintf("http://%s/v1/data?from=%d%s", c.Node(id).APIAddr, from, params)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, 0, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		apiErr := &APIError{Status: resp.StatusCode}
		_ = json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(apiErr)
		return 0, 0, apiErr
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxDumpLine)
	for lines.Scan() {
		var item struct {
			LSN     uint64 `json:"lsn"`
			Key     string `json:"key"`
			Value   string `json:"value"`
			Deleted bool   `json:"deleted"`
		}
		if err := json.Unmarshal(lines.Bytes(), &item); err != nil {
			return 0, 0, fmt.Errorf("after LSN %d: %w", next, err)
		}
		data[item.Key] = item.Value
		if item.Deleted {
			delete(data, item.Key)
		}
		next = item.LSN + 1
	}
	commit, _ = strconv.ParseUint(resp.Header.Get(walplane.HeaderCommit), 10, 64) // absent: this page is all
	return next, commit, lines.Err()
}

// WaitPrimary waits until a node says that it is primary in an epoch above
// after, and returns its status. It gives up when ctx ends or when a node that
// should run has ended, and says what was missing.
func (c *Cluster) WaitPrimary(ctx context.Context, after protocol.Epoch) (Status, error) {
	var found Status
	err := c.Wait(ctx, "a primary", func(statuses []Status) bool {
		for _, s := range statuses {
			if s.Role == protocol.RolePrimary && s.Epoch > after && s.Epoch >= found.Epoch {
				found = s
			}
		}
		return found.NodeID != protocol.NoNode
	})
	return found, err
}

// WaitReplica waits until node id follows primary and has everything that the
// primary had when this was called.
func (c *Cluster) WaitReplica(ctx context.Context, id, primary protocol.NodeID) (Status, error) {
	target := protocol.Position{LSN: protocol.MaxLSN}
	if s, err := c.Status(ctx, primary); err == nil {
		target = s.Position
	}
	var found Status
	what := fmt.Sprintf("node %d to catch up as replica of node %d", id, primary)
	err := c.Wait(ctx, what, func(statuses []Status) bool {
		var caughtUp bool
		for _, s := range statuses {
			if s.NodeID == primary && target.LSN == protocol.MaxLSN {
				target = s.Position
			}
			if s.NodeID == id {
				caughtUp = s.Role == protocol.RoleReplica && s.Primary == primary && s.Position.Compare(target) >= 0 &&
					s.Position.LSN >= target.LSN
				found = s
			}
		}
		return caughtUp
	})
	return found, err
}

// Wait polls the nodes that run until condition holds. It is given the status
// of every node that answered. what names the condition in the error.
func (c *Cluster) Wait(ctx context.Context, what string, condition func([]Status) bool) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	var last []Status
	for {
		statuses := c.statuses(ctx)
		if condition(statuses) {
			return nil
		}
		if ctx.Err() == nil {
			last = statuses
		}
		if exited := c.Exited(); exited != nil {
			return exited
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			err := context.Cause(ctx)
			if errors.Is(err, context.DeadlineExceeded) {
				return fmt.Errorf("waited too long for %s: %s", what, c.describe(last))
			}
			return fmt.Errorf("waiting for %s: %w", what, err)
		}
	}
}

// statuses asks all running nodes at once.
func (c *Cluster) statuses(ctx context.Context) []Status {
	answers := make(chan *Status, len(c.nodes))
	var asked int
	for _, n := range c.nodes {
		if !c.Running(n.ID) {
			continue
		}
		asked++
		go func() {
			s, err := c.Status(ctx, n.ID)
			if err != nil || s.NodeID != n.ID {
				answers <- nil
				return
			}
			answers <- &s
		}()
	}
	var all []Status
	for range asked {
		if s := <-answers; s != nil {
			all = append(all, *s)
		}
	}
	return all
}

// describe says in one line what the nodes last said of themselves.
func (c *Cluster) describe(statuses []Status) string {
	var parts []string
	for _, n := range c.nodes {
		said := "silent"
		if !c.Running(n.ID) {
			said = "not running"
		}
		for _, s := range statuses {
			if s.NodeID == n.ID {
				said = fmt.Sprintf("%s in epoch %d at %s, primary %d, %s", s.Role, s.Epoch, s.Position, s.Primary, s.State)
				if s.Blocked != "" {
					said += " (" + s.Blocked + ")"
				}
			}
		}
		parts = append(parts, fmt.Sprintf("node %d %s", n.ID, said))
	}
	return strings.Join(parts, "; ")
}
