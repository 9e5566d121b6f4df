// Package settings turns flags, the environment and a config file into the
// configuration of a served node.
//
//	--node-id 1   >   AIONDB_HA_NODE_ID=1   >   {"node_id": 1}   >   default
//
// One name in three spellings; the first place that has it wins. An empty value
// means "not set here". Secrets have a file twin (auth-token-file) and are not
// taken from the command line, where every user of the machine can read them.
// Load reports everything that is wrong at once, one line each, and every line
// says where the value came from and what to do. It never changes anything on
// disk.
package settings

import (
	"flag"
	"fmt"
	"slices"
	"strings"
)

// EnvPrefix begins every variable.
const EnvPrefix = "AIONDB_HA_"

// Option describes one setting.
type Option struct {
	Name    string // as a flag, without dashes: node-id
	Value   string // what it takes, for help: N, DIR, HOST:PORT
	Default string // for help; "" if there is none
	Help    string // one line
	Secret  bool   // not offered as a flag
}

// Env returns the name of the option's variable.
func (o Option) Env() string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(o.Name, "-", "_"))
}

// FileKey returns the option's name in a config file.
func (o Option) FileKey() string { return strings.ReplaceAll(o.Name, "-", "_") }

// Options returns all settings, in the order in which help shows them.
func Options() []Option {
	return []Option{
		{Name: "node-id", Value: "N", Help: "this node's position in the list of nodes, from 1"},
		{Name: "cluster-nodes", Value: "HOST:PORT,...", Help: "the HA address of every node, the same list on all of them"},
		{Name: "auth-token", Value: "TEXT", Secret: true, Help: "the cluster secret, at least 32 bytes (see aiondb-ha token)"},
		{Name: "auth-token-file", Value: "FILE", Help: "file with the cluster secret"},
		{Name: "auth-token-next", Value: "TEXT", Secret: true, Help: "the secret to come: accepted, not used"},
		{Name: "auth-token-next-file", Value: "FILE", Default: "auth-token-file + .next", Help: "file with it; may be absent or empty"},
		{Name: "auth-token-previous", Value: "TEXT", Secret: true, Help: "the secret that was: still accepted, not used any more"},
		{Name: "auth-token-previous-file", Value: "FILE", Default: "auth-token-file + .previous", Help: "file with it; may be absent or empty"},
		{Name: "tls-ca", Value: "FILE", Help: "PEM, the CA that signs the nodes; with the next two in place of the secret's own TLS key"},
		{Name: "tls-cert", Value: "FILE", Help: "PEM, this node's certificate (see aiondb-ha cert)"},
		{Name: "tls-key", Value: "FILE", Help: "PEM, its private key"},
		{Name: "data-dir", Value: "DIR", Help: "where the node keeps everything; its HA state is in ha/node-N under it"},
		{Name: "port", Value: "PORT", Default: "that of the node's address", Help: "the HA port to listen on, TCP and UDP"},
		{Name: "bind-addr", Value: "HOST[:PORT]", Default: "the advertised address", Help: "the address to listen on, such as 0.0.0.0"},
		{Name: "advertise-addr", Value: "HOST:PORT", Default: "the node's entry in the list", Help: "where the other nodes reach this one"},
		{Name: "api-addr", Value: "HOST:PORT", Default: "127.0.0.1, HA port + 100", Help: "HTTP API and dashboard; beyond loopback it wants a token and speaks TLS"},
		{Name: "api-token", Value: "TEXT", Secret: true, Help: "API token that may do everything; several, with blanks between, all count"},
		{Name: "api-token-file", Value: "FILE", Help: "file with API tokens that may do everything, one a line; read again when it changes"},
		{Name: "api-read-token", Value: "TEXT", Secret: true, Help: "API token that may change nothing"},
		{Name: "api-read-token-file", Value: "FILE", Help: "file with API tokens that may change nothing, one a line"},
		{Name: "api-require-token", Value: "BOOL", Default: "true beyond loopback or with a token set", Help: "ask for a token; those derived from the cluster secret count always"},
		{Name: "api-tls", Value: "on|off", Default: "on beyond loopback or with a certificate", Help: "TLS for the API; without a certificate the node makes one"},
		{Name: "api-tls-cert", Value: "FILE", Help: "PEM certificate of the API, with its chain; read again when it changes"},
		{Name: "api-tls-key", Value: "FILE", Help: "PEM private key of that certificate"},
		{Name: "data-addr", Value: "HOST:PORT", Default: "HA host, HA port + 200", Help: "where this node's WAL is replicated from"},
		{Name: "witness", Value: "BOOL", Default: "false", Help: "true: a voter without data, which never becomes primary"},
		{Name: "profile", Value: "NAME", Default: "default", Help: "default, or fast (10, 40 and 120 ms) for one rack with quick disks; the times below go over it"},
		{Name: "election-timeout-ms", Value: "MS", Default: "600", Help: "how long an election or a ballot may take; more than the check timeout"},
		{Name: "health-check-timeout-ms", Value: "MS", Default: "250", Help: "how long the leader may be silent; more than the check interval"},
		{Name: "health-check-interval-ms", Value: "MS", Default: "50", Help: "how often a node looks at its database"},
		{Name: "max-failover-lag", Value: "LSNS", Default: "0, no limit", Help: "a node further behind the primary than this is not promoted"},
		{Name: "fencing-token-path", Value: "FILE", Default: "fencing.json in the state directory", Help: "file of the durable floor"},
		{Name: "lease-file", Value: "FILE", Help: "show the lease to a database in another process; a path in memory, such as /run"},
		{Name: "log-level", Value: "LEVEL", Default: "info", Help: "trace, debug, info, warn, error or off"},
		{Name: "enabled", Value: "BOOL", Default: "true", Help: "false: refuse to serve"},
	}
}

// configOption names the file itself; it stands in no file.
const configOption = "config"

// Flags holds what the command line says. Register it before parsing.
type Flags struct {
	values  map[string]string
	refused []Option // secrets that were given all the same
}

// Err says that a secret stands on the command line, without repeating it. It
// is to be asked after parsing.
func (f *Flags) Err() error {
	for _, o := range f.refused {
		return fmt.Errorf("--%s: every user of this machine can read a command line: use --%s-file FILE or %s", o.Name, o.Name, o.Env())
	}
	return nil
}

// Register adds a flag for every option, and --config, without usage texts (see
// Options). A secret's flag is there only for Err to say why it must not be.
func Register(fs *flag.FlagSet) *Flags {
	f := &Flags{values: make(map[string]string)}
	for _, o := range Options() {
		if o.Secret {
			// No error from here: package flag would print the value with it.
			fs.Func(o.Name, "", func(string) error { f.refused = append(f.refused, o); return nil })
			continue
		}
		set := func(v string) error { f.values[o.Name] = v; return nil }
		if o.Name == "enabled" || o.Name == "witness" {
			fs.BoolFunc(o.Name, "", set)
		} else {
			fs.Func(o.Name, "", set)
		}
	}
	fs.Func(configOption, "", func(v string) error { f.values[configOption] = v; return nil })
	return f
}

// Nearest returns the candidate that a misspelt name most likely means, or "".
func Nearest(name string, candidates []string) string {
	best, at := "", max(2, len(name)/3)+1
	for _, c := range candidates {
		if d := distance(name, c); d < at {
			best, at = c, d
		}
	}
	return best
}

// distance counts the letters to insert, delete, replace or swap with their
// neighbour to get from a to b.
func distance(a, b string) int {
	before, last := []int(nil), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row := append(make([]int, 0, len(b)+1), i+1)
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			d := min(row[j]+1, last[j+1]+1, last[j]+cost)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				d = min(d, before[j-1]+1)
			}
			row = append(row, d)
		}
		before, last = last, row
	}
	return last[len(b)]
}

func optionNames(spell func(Option) string) []string {
	var names []string
	for _, o := range Options() {
		names = append(names, spell(o))
	}
	slices.Sort(names)
	return names
}
