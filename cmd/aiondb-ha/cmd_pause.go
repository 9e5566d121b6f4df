package main

import (
	"flag"
	"fmt"
	"net/http"
	"net/url"
)

func pauseCommands() []command {
	return []command{
		{
			name: "pause", short: "no automatic failover, until resume; or take one node out of the choice", client: true, data: true,
			long: "Nobody takes the primacy from the node that has it, or had it last: if it is lost there is no\n" +
				"primary until it is back, until resume, or until a failover is permitted. Switchovers go on\n" +
				"working. Safety does not change: a primary without a quorum acknowledges nothing, paused or\n" +
				"not. With --node that one node does not become primary, and hands over if it is.",
			examples: []string{"aiondb-ha pause --reason 'new switch'", "aiondb-ha pause --node 2"},
			setup:    setupPause,
		},
		{
			name: "resume", short: "take back a pause, or with --node a node's maintenance", client: true, data: true,
			setup: setupResume,
		},
		{
			name: "failover", short: "permit a node to take over, in spite of a pause or of what it lacks", client: true, data: true,
			long: "For a cluster that has no primary and says so: because failover is paused, or because every\n" +
				"node is further behind the lost primary than max_failover_lag. What the node lacks is lost.\n" +
				"The permit holds for the next promotion only and is recorded, with the reason, in the log and\n" +
				"in every journal. It takes nothing from a primary that is there: for that, see switchover.",
			examples: []string{"aiondb-ha failover --to 2 --reason 'node 1 burnt down'"},
			setup:    setupFailover,
		},
	}
}

func setupPause(fs *flag.FlagSet) runner {
	node := fs.Uint64("node", 0, "`ID` of the one node to take out (default: pause the cluster)")
	reason := fs.String("reason", "", "`TEXT` for whoever wonders later")
	return func(a *app, in *input) error {
		sentence := "failover is paused"
		if *node != 0 {
			sentence = fmt.Sprintf("node %d is in maintenance", *node)
		}
		return a.rule(in, sentence, func(c *client) ([]byte, error) {
			return c.post(a.ctx, "/v1/pause", map[string]any{"node": *node, "reason": *reason})
		})
	}
}

func setupResume(fs *flag.FlagSet) runner {
	node := fs.Uint64("node", 0, "`ID` of the node whose maintenance is over (default: the cluster's pause)")
	return func(a *app, in *input) error {
		query, sentence := url.Values{}, "failover goes on by itself"
		if *node != 0 {
			query.Set("node", fmt.Sprint(*node))
			sentence = fmt.Sprintf("node %d may be primary again", *node)
		}
		return a.rule(in, sentence, func(c *client) ([]byte, error) {
			return c.call(a.ctx, http.MethodDelete, "/v1/pause", query, nil)
		})
	}
}

func setupFailover(fs *flag.FlagSet) runner {
	to := fs.Uint64("to", 0, "`ID` of the node that may take over")
	reason := fs.String("reason", "", "`TEXT` for whoever wonders later")
	return func(a *app, in *input) error {
		if *to == 0 {
			return misused("--to is missing: name the node that may take over")
		}
		sentence := fmt.Sprintf("node %d may take over: see aiondb-ha status and aiondb-ha events", *to)
		return a.rule(in, sentence, func(c *client) ([]byte, error) {
			return c.post(a.ctx, "/v1/failover", map[string]any{"to": *to, "reason": *reason})
		})
	}
}

// rule lays down a rule and says so.
func (a *app) rule(in *input, sentence string, lay func(*client) ([]byte, error)) error {
	c, err := a.client(in)
	if err != nil {
		return err
	}
	raw, err := lay(c)
	if err != nil {
		return err
	}
	if in.json {
		return a.document(raw)
	}
	_, err = fmt.Fprintln(a.stdout, sentence)
	return err
}
