package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/aiondb/aiondb-ha/fsm"
	"github.com/aiondb/aiondb-ha/internal/httpapi"
	"github.com/aiondb/aiondb-ha/internal/term"
)

// maxShown is how much of a value a list shows, in bytes.
const maxShown = 60

func kvCommands() []command {
	return []command{
		{
			name: "kv get", args: "KEY", short: "print the value of a key", min: 1, max: 1, client: true, data: true,
			long:     "The value is printed as it is, byte for byte, without a line break of its own; --json prints\nkey, value, revision and how fresh the answer is. Without --stale the answer is\nlinearizable, and needs a quorum. A key that is not there: exit status 1.",
			examples: []string{"aiondb-ha kv get greeting", "aiondb-ha kv get greeting --stale --json"},
			setup:    withStale(runKVGet),
		},
		{
			name: "kv put", args: "KEY VALUE|-", short: "set a key, through Raft, from any node", min: 2, max: 2, client: true, data: true,
			long:     fmt.Sprintf("With - the value is read from standard input, at most %d bytes. Keys under ha/ belong to the\ncluster itself. With --if-revision nothing is written, and the exit status is 1, unless the key has\nthat revision (kv list, or kv get --json): what somebody else has written meanwhile is kept.", httpapi.MaxValueLen),
			examples: []string{"aiondb-ha kv put greeting hello", "aiondb-ha kv put photo - < photo.jpg", "aiondb-ha kv put lock me --if-revision 0"},
			setup:    withRevision(runKVPut),
		},
		{
			name: "kv del", args: "KEY", short: "delete a key", min: 1, max: 1, client: true, data: true,
			long:     "With --if-revision the key is deleted only if it has that revision; else the exit status is 1.",
			examples: []string{"aiondb-ha kv del greeting", "aiondb-ha kv del lock --if-revision 42"},
			setup:    withRevision(runKVDel),
		},
		{
			name: "kv list", args: "[PREFIX]", short: "list keys and values",
			long: "Keys under ha/ belong to the cluster itself and are shown with --all, or when PREFIX begins with ha/.", max: 1, client: true, data: true,
			examples: []string{"aiondb-ha kv list app/ --limit 20"},
			setup:    setupKVList,
		},
		{
			name: "config get", args: "NAME", short: "print a replicated setting", min: 1, max: 1, client: true, data: true,
			setup: withStale(runConfigGet),
		},
		{
			name: "config set", args: "NAME VALUE", short: "change a replicated setting", min: 2, max: 2, client: true, data: true,
			examples: []string{"aiondb-ha config set maintenance_window sunday"},
			setup:    simple(runConfigSet),
		},
		{
			name: "config list", short: "list the replicated settings", client: true, data: true,
			setup: withStale(runConfigList),
		},
	}
}

// staleRunner is a runner that may read stale.
type staleRunner func(a *app, in *input, query url.Values) error

// withStale offers --stale.
func withStale(run staleRunner) func(*flag.FlagSet) runner {
	return func(fs *flag.FlagSet) runner {
		query := staleQuery(fs)
		return func(a *app, in *input) error { return run(a, in, query()) }
	}
}

func staleQuery(fs *flag.FlagSet) func() url.Values {
	stale := fs.Bool("stale", false, "take what the node has, with its age, also without a quorum")
	return func() url.Values {
		if *stale {
			return url.Values{"stale": {"true"}}
		}
		return url.Values{}
	}
}

// entry is a key and its value, as the API gives them; encoding/json reads
// base64 into byte slices by itself.
type entry struct {
	Key         *string `json:"key"`
	KeyBase64   []byte  `json:"key_base64"`
	Value       *string `json:"value"`
	ValueBase64 []byte  `json:"value_base64"`
	Revision    uint64  `json:"revision"`
}

func (e entry) key() []byte   { return either(e.Key, e.KeyBase64) }
func (e entry) value() []byte { return either(e.Value, e.ValueBase64) }

func either(text *string, raw []byte) []byte {
	if text != nil {
		return []byte(*text)
	}
	return raw
}

func runKVGet(a *app, in *input, query url.Values) error {
	c, err := a.client(in)
	if err != nil {
		return err
	}
	var answer struct {
		entry
		freshness
	}
	raw, err := c.get(a.ctx, "/v1/kv/"+pathEscape(in.args[0]), query, &answer)
	if err != nil {
		return err
	}
	if in.json {
		return a.document(raw)
	}
	a.noteStale(answer.freshness)
	if _, err := a.stdout.Write(answer.value()); err != nil {
		return err
	}
	if term.IsTerminal(a.stdout) {
		fmt.Fprintln(a.stdout) // so that the prompt does not follow the value
	}
	return nil
}

// withRevision offers --if-revision.
func withRevision(run func(a *app, in *input, query url.Values) error) func(*flag.FlagSet) runner {
	return func(fs *flag.FlagSet) runner {
		query := url.Values{}
		fs.Func("if-revision", "only if the key has this revision `N`; 0: only if it is not there", func(text string) error {
			if _, err := strconv.ParseUint(text, 10, 64); err != nil {
				return errors.New("want a whole number, as kv list shows it")
			}
			query.Set("if_revision", text)
			return nil
		})
		return func(a *app, in *input) error { return run(a, in, query) }
	}
}

func runKVPut(a *app, in *input, query url.Values) error {
	value := []byte(in.args[1])
	if in.args[1] == "-" {
		var err error
		if value, err = io.ReadAll(io.LimitReader(a.stdin, httpapi.MaxValueLen+1)); err != nil {
			return fmt.Errorf("standard input cannot be read: %w", err)
		}
	}
	if len(value) > httpapi.MaxValueLen {
		return fmt.Errorf("the value is too large: at most %d bytes", httpapi.MaxValueLen)
	}
	c, err := a.client(in)
	if err != nil {
		return err
	}
	raw, err := c.call(a.ctx, http.MethodPut, "/v1/kv/"+pathEscape(in.args[0]), query, value)
	return a.done(in, raw, err, term.Safe(in.args[0])+" is set")
}

func runKVDel(a *app, in *input, query url.Values) error {
	c, err := a.client(in)
	if err != nil {
		return err
	}
	raw, err := c.call(a.ctx, http.MethodDelete, "/v1/kv/"+pathEscape(in.args[0]), query, nil)
	return a.done(in, raw, err, term.Safe(in.args[0])+" is deleted")
}

func setupKVList(fs *flag.FlagSet) runner {
	query := staleQuery(fs)
	limit := fs.Uint("limit", httpapi.DefaultListLimit, fmt.Sprintf("at most `N` entries, up to %d", httpapi.MaxListLimit))
	all := fs.Bool("all", false, "the cluster's own keys too, those under "+fsm.ReservedPrefix)
	return func(a *app, in *input) error {
		if *limit < 1 || *limit > httpapi.MaxListLimit {
			return misused("--limit %d: want 1 to %d", *limit, httpapi.MaxListLimit)
		}
		q := query()
		if *all {
			q.Set("all", "true")
		}
		q.Set("limit", strconv.FormatUint(uint64(*limit), 10))
		if len(in.args) > 0 {
			q.Set("prefix", in.args[0])
		}
		return runKVList(a, in, q)
	}
}

func runKVList(a *app, in *input, query url.Values) error {
	c, err := a.client(in)
	if err != nil {
		return err
	}
	var answer struct {
		Entries []entry `json:"entries"`
		More    bool    `json:"more"`
		freshness
	}
	raw, err := c.get(a.ctx, "/v1/kv", query, &answer)
	if err != nil {
		return err
	}
	if in.json {
		return a.document(raw)
	}
	a.noteStale(answer.freshness)
	tab := term.NewTable("KEY", "REVISION", "VALUE").Right(1)
	for _, e := range answer.Entries {
		tab.Row(term.Safe(string(e.key())), count(e.Revision), shorten(e.value()))
	}
	if err := tab.Write(a.stdout, a.style()); err != nil {
		return err
	}
	if answer.More {
		fmt.Fprintln(a.stderr, "there are more: give a longer PREFIX, or --limit")
	}
	return nil
}

func runConfigGet(a *app, in *input, query url.Values) error {
	c, err := a.client(in)
	if err != nil {
		return err
	}
	var answer struct {
		Value string `json:"value"`
		freshness
	}
	raw, err := c.get(a.ctx, "/v1/config/"+pathEscape(in.args[0]), query, &answer)
	if err != nil {
		return err
	}
	if in.json {
		return a.document(raw)
	}
	a.noteStale(answer.freshness)
	_, err = fmt.Fprintln(a.stdout, answer.Value)
	return err
}

func runConfigSet(a *app, in *input) error {
	c, err := a.client(in)
	if err != nil {
		return err
	}
	raw, err := c.call(a.ctx, http.MethodPut, "/v1/config/"+pathEscape(in.args[0]), nil, []byte(in.args[1]))
	return a.done(in, raw, err, term.Safe(in.args[0])+" is set")
}

func runConfigList(a *app, in *input, query url.Values) error {
	c, err := a.client(in)
	if err != nil {
		return err
	}
	var answer struct {
		Settings []struct{ Key, Value string } `json:"settings"`
		freshness
	}
	raw, err := c.get(a.ctx, "/v1/config", query, &answer)
	if err != nil {
		return err
	}
	if in.json {
		return a.document(raw)
	}
	a.noteStale(answer.freshness)
	tab := term.NewTable("NAME", "VALUE")
	for _, s := range answer.Settings {
		tab.Row(term.Safe(s.Key), term.Safe(s.Value))
	}
	return tab.Write(a.stdout, a.style())
}
