package httpapi

import (
	"context"
	"net/http"

	"github.com/aiondb/aiondb-ha/fsm"
	"github.com/aiondb/aiondb-ha/protocol"
)

// Ruler lays down the rules of failover; the errors are those of Propose.
type Ruler interface {
	Rules() fsm.Rules
	// Pause and Resume are about the whole cluster.
	Pause(ctx context.Context, reason string) error
	Resume(ctx context.Context) error
	BeginMaintenance(ctx context.Context, id protocol.NodeID, reason string) error
	EndMaintenance(ctx context.Context, id protocol.NodeID) error
	// PermitFailover lets one node become primary next, in spite of a pause or
	// of its lag.
	PermitFailover(ctx context.Context, id protocol.NodeID, reason string) error
}

// rules answers with the rules as this node knows them.
func (a *api) rules(w http.ResponseWriter, r *http.Request) error {
	if _, err := parse(r, "stale"); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, a.backend.Rules())
}

func (a *api) pause(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		Node   protocol.NodeID `json:"node"` // absent or 0: the whole cluster
		Reason string          `json:"reason"`
	}
	return a.rule(w, r, &body, func(ctx context.Context) error {
		if body.Node != protocol.NoNode {
			return a.backend.BeginMaintenance(ctx, body.Node, body.Reason)
		}
		return a.backend.Pause(ctx, body.Reason)
	})
}

func (a *api) permit(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		To     protocol.NodeID `json:"to"`
		Reason string          `json:"reason"`
	}
	return a.rule(w, r, &body, func(ctx context.Context) error {
		if body.To == protocol.NoNode {
			return badRequest(`want {"to": 2, "reason": "..."}: name the node that may take over`)
		}
		return a.backend.PermitFailover(ctx, body.To, body.Reason)
	})
}

// rule reads body, lays a rule down and answers with all of them.
func (a *api) rule(w http.ResponseWriter, r *http.Request, body any, lay func(context.Context) error) error {
	q, err := parse(r)
	if err != nil {
		return err
	}
	if err := readJSON(w, r, body); err != nil {
		return err
	}
	ctx, cancel := q.context(r)
	defer cancel()
	if err := lay(ctx); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, a.backend.Rules())
}

// resume takes back the pause, or with ?node= that node's maintenance.
func (a *api) resume(w http.ResponseWriter, r *http.Request) error {
	q, err := parse(r, "node")
	if err != nil {
		return err
	}
	ctx, cancel := q.context(r)
	defer cancel()
	if text := r.URL.Query().Get("node"); text != "" {
		id, err := protocol.ParseNodeID(text)
		if err != nil {
			return badRequest("%v", err)
		}
		err = a.backend.EndMaintenance(ctx, id)
		if err != nil {
			return err
		}
	} else if err := a.backend.Resume(ctx); err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, a.backend.Rules())
}
