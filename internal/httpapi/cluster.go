package httpapi

import (
	"context"
	"errors"
	"net/http"

	"github.com/aiondb/aiondb-ha/failover"
	"github.com/aiondb/aiondb-ha/fsm"
	"github.com/aiondb/aiondb-ha/fsm/command"
	"github.com/aiondb/aiondb-ha/protocol"
)

// propose commits c by the request's deadline and answers with what it did.
func (a *api) propose(w http.ResponseWriter, r *http.Request, q request, c command.Command) error {
	return a.commit(w, r, q, func(ctx context.Context) (fsm.Result, error) { return a.backend.Propose(ctx, c) })
}

func (a *api) commit(w http.ResponseWriter, r *http.Request, q request, f func(context.Context) (fsm.Result, error)) error {
	ctx, cancel := q.context(r)
	defer cancel()
	result, err := f(ctx)
	if err == nil {
		err = result.Err()
	}
	if errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, failover.ErrNoQuorum) {
		err = errors.Join(failover.ErrOutcomeUnknown, err)
	}
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, result)
}

// read calls f with the state, by the request's deadline and in its consistency.
func (a *api) read(r *http.Request, q request, f func(*fsm.State)) (fsm.Freshness, error) {
	ctx, cancel := q.context(r)
	defer cancel()
	return a.backend.Read(ctx, q.consistency, f)
}

func (a *api) status(w http.ResponseWriter, r *http.Request) error {
	if _, err := parse(r); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, a.backend.Status())
}

// nodes answers with this node's own view: what it measured itself, always
// stale by nature.
func (a *api) nodes(w http.ResponseWriter, r *http.Request) error {
	if _, err := parse(r, "stale"); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, struct {
		Nodes any `json:"nodes"`
	}{a.backend.Nodes()})
}

func (a *api) nodeAdd(w http.ResponseWriter, r *http.Request) error {
	q, err := parse(r)
	if err != nil {
		return err
	}
	var body struct {
		NodeID  protocol.NodeID `json:"node_id"`
		Address string          `json:"address"`
	}
	if err := readJSON(w, r, &body); err != nil {
		return err
	}
	if body.NodeID == protocol.NoNode || body.Address == "" {
		return badRequest(`want {"node_id": 4, "address": "host:port"}`)
	}
	if len(body.Address) > protocol.MaxAddrLen {
		return badRequest("the address has %d bytes: at most %d", len(body.Address), protocol.MaxAddrLen)
	}
	return a.propose(w, r, q, command.AddNode{NodeID: body.NodeID, Address: body.Address})
}

func (a *api) nodeRemove(w http.ResponseWriter, r *http.Request) error {
	q, err := parse(r)
	if err != nil {
		return err
	}
	id, err := protocol.ParseNodeID(r.PathValue("id"))
	if err != nil {
		return badRequest("%v", err)
	}
	return a.propose(w, r, q, command.RemoveNode{NodeID: id})
}

func (a *api) shards(w http.ResponseWriter, r *http.Request) error {
	q, err := parse(r, "stale")
	if err != nil {
		return err
	}
	answer := struct {
		Shards []fsm.Shard `json:"shards"`
		fsm.Freshness
	}{Shards: []fsm.Shard{}}
	answer.Freshness, err = a.read(r, q, func(s *fsm.State) { answer.Shards = append(answer.Shards, s.Shards()...) })
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, answer)
}

func (a *api) shardAssign(w http.ResponseWriter, r *http.Request) error {
	q, err := parse(r)
	if err != nil {
		return err
	}
	var body struct {
		TableID *uint64         `json:"table_id"`
		ShardID *uint32         `json:"shard_id"`
		NodeID  protocol.NodeID `json:"node_id"`
	}
	if err := readJSON(w, r, &body); err != nil {
		return err
	}
	if body.TableID == nil || body.ShardID == nil || body.NodeID == protocol.NoNode {
		return badRequest(`want {"table_id": 1, "shard_id": 0, "node_id": 2}`)
	}
	return a.propose(w, r, q, command.AssignShard{TableID: *body.TableID, ShardID: *body.ShardID, NodeID: body.NodeID})
}

func (a *api) shardTransfer(w http.ResponseWriter, r *http.Request) error {
	q, err := parse(r)
	if err != nil {
		return err
	}
	var body struct {
		TableID  *uint64         `json:"table_id"`
		ShardID  *uint32         `json:"shard_id"`
		FromNode protocol.NodeID `json:"from_node"`
		ToNode   protocol.NodeID `json:"to_node"`
	}
	if err := readJSON(w, r, &body); err != nil {
		return err
	}
	if body.TableID == nil || body.ShardID == nil || body.FromNode == protocol.NoNode || body.ToNode == protocol.NoNode {
		return badRequest(`want {"table_id": 1, "shard_id": 0, "from_node": 2, "to_node": 3}`)
	}
	return a.propose(w, r, q, command.TransferShard{TableID: *body.TableID, ShardID: *body.ShardID, FromNode: body.FromNode, ToNode: body.ToNode})
}

// switchover answers when the new primary has taken over.
func (a *api) switchover(w http.ResponseWriter, r *http.Request) error {
	q, err := parse(r)
	if err != nil {
		return err
	}
	var body struct {
		To protocol.NodeID `json:"to"` // absent or 0: the best replica
	}
	if err := readJSON(w, r, &body); err != nil {
		return err
	}
	ctx, cancel := q.context(r)
	defer cancel()
	if err := a.backend.Switchover(ctx, body.To); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, a.backend.Status())
}

// probe answers 200 or 503, for load balancers. The reason is for those who may
// read.
func (a *api) probe(name string) route {
	return func(w http.ResponseWriter, r *http.Request) error {
		ok, why := a.backend.Is(name)
		if !caller(r).allows(ScopeRead) {
			why = ""
		}
		status := http.StatusOK
		if !ok {
			status = http.StatusServiceUnavailable
		}
		return writeJSON(w, status, struct {
			OK     bool   `json:"ok"`
			Reason string `json:"reason,omitempty"`
		}{ok, why})
	}
}
