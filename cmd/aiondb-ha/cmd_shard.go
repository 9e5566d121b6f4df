package main

import (
	"fmt"
	"net/url"
	"strconv"

	"github.com/aiondb/aiondb-ha/internal/term"
	"github.com/aiondb/aiondb-ha/protocol"
)

func shardCommands() []command {
	return []command{
		{
			name: "shards", short: "which node holds which shard", client: true, data: true,
			setup: withStale(runShards),
		},
		{
			name: "shard assign", args: "TABLE SHARD NODE", short: "give a shard of a table to a node", min: 3, max: 3, client: true, data: true,
			examples: []string{"aiondb-ha shard assign 7 0 2"},
			setup:    simple(runShardAssign),
		},
		{
			name: "shard transfer", args: "TABLE SHARD FROM TO", short: "move a shard, if FROM has it", min: 4, max: 4, client: true, data: true,
			examples: []string{"aiondb-ha shard transfer 7 0 2 3"},
			setup:    simple(runShardTransfer),
		},
	}
}

func runShards(a *app, in *input, query url.Values) error {
	c, err := a.client(in)
	if err != nil {
		return err
	}
	var answer struct {
		Shards []struct {
			TableID uint64          `json:"table_id"`
			ShardID uint32          `json:"shard_id"`
			NodeID  protocol.NodeID `json:"node_id"`
		} `json:"shards"`
		freshness
	}
	raw, err := c.get(a.ctx, "/v1/shards", query, &answer)
	if err != nil {
		return err
	}
	if in.json {
		return a.document(raw)
	}
	a.noteStale(answer.freshness)
	tab := term.NewTable("TABLE", "SHARD", "NODE").Right(0, 1, 2)
	for _, s := range answer.Shards {
		tab.Row(count(s.TableID), count(s.ShardID), s.NodeID.String())
	}
	return tab.Write(a.stdout, a.style())
}

// shardArgs reads TABLE SHARD and the nodes after them.
func shardArgs(args []string) (table uint64, shard uint32, nodes []protocol.NodeID, err error) {
	if table, err = strconv.ParseUint(args[0], 10, 64); err != nil {
		return 0, 0, nil, misused("table %q: want a whole number", args[0])
	}
	n, err := strconv.ParseUint(args[1], 10, 32)
	if err != nil {
		return 0, 0, nil, misused("shard %q: want a whole number below 2^32", args[1])
	}
	for _, text := range args[2:] {
		id, err := protocol.ParseNodeID(text)
		if err != nil {
			return 0, 0, nil, misused("%v", err)
		}
		nodes = append(nodes, id)
	}
	return table, uint32(n), nodes, nil
}

func runShardAssign(a *app, in *input) error {
	table, shard, nodes, err := shardArgs(in.args)
	if err != nil {
		return err
	}
	c, err := a.client(in)
	if err != nil {
		return err
	}
	raw, err := c.post(a.ctx, "/v1/shards/assign", map[string]any{"table_id": table, "shard_id": shard, "node_id": nodes[0]})
	return a.done(in, raw, err, fmt.Sprintf("shard %d of table %d is on node %s", shard, table, nodes[0]))
}

func runShardTransfer(a *app, in *input) error {
	table, shard, nodes, err := shardArgs(in.args)
	if err != nil {
		return err
	}
	c, err := a.client(in)
	if err != nil {
		return err
	}
	raw, err := c.post(a.ctx, "/v1/shards/transfer", map[string]any{"table_id": table, "shard_id": shard, "from_node": nodes[0], "to_node": nodes[1]})
	return a.done(in, raw, err, fmt.Sprintf("shard %d of table %d moved from node %s to node %s", shard, table, nodes[0], nodes[1]))
}
