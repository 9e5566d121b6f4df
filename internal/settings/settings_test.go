package settings

import (
	"flag"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	ha "github.com/aiondb/aiondb-ha"
	"github.com/aiondb/aiondb-ha/protocol"
)

const (
	secretA = "0123456789abcdef0123456789abcdef"
	secretB = "fedcba9876543210fedcba9876543210"

	tokenA = "token-a-0123456789abcdef0123456789"
	tokenB = "token-b-0123456789abcdef0123456789"
	tokenC = "token-c-0123456789abcdef0123456789"
)

// environment returns settings that are right, with changes; "" unsets.
func environment(changes ...string) []string {
	vars := map[string]string{
		"AIONDB_HA_NODE_ID":       "2",
		"AIONDB_HA_CLUSTER_NODES": "127.0.0.1:7600, 127.0.0.1:7601,,127.0.0.1:7602,",
		"AIONDB_HA_AUTH_TOKEN":    secretA,
		"AIONDB_HA_DATA_DIR":      "/data",
	}
	for i := 0; i+1 < len(changes); i += 2 {
		vars["AIONDB_HA_"+changes[i]] = changes[i+1]
	}
	environ := []string{"PATH=/bin"}
	for name, v := range vars {
		environ = append(environ, name+"="+v)
	}
	return environ
}

func load(t *testing.T, environ []string, args ...string) (Settings, error) {
	t.Helper()
	fs := flag.NewFlagSet("serve", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	flags := Register(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatalf("flags: %v", err)
	}
	return Load(flags, environ)
}

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDefaults(t *testing.T) {
	s, err := load(t, environment())
	if err != nil {
		t.Fatal(err)
	}
	want := Settings{
		Enabled: true,
		Node: ha.Config{
			NodeID:              2,
			Nodes:               []string{"127.0.0.1:7600", "127.0.0.1:7601", "127.0.0.1:7602"},
			BindAddr:            "127.0.0.1:7601",
			Secret:              protocol.NewSecret(secretA),
			DataDir:             "/data",
			HealthCheckInterval: 50 * time.Millisecond,
			HealthCheckTimeout:  250 * time.Millisecond,
			ElectionTimeout:     600 * time.Millisecond,
		},
		APIAddr:  "127.0.0.1:7701",
		DataAddr: "127.0.0.1:7801",
		LogLevel: hclog.Info,
	}
	if s.Node.Reload == nil {
		t.Error("nothing to reload by")
	}
	s.Node.Reload = nil // functions cannot be compared
	if !reflect.DeepEqual(s, want) {
		t.Errorf("got  %+v\nwant %+v", s, want)
	}
}

func TestEverythingSet(t *testing.T) {
	readToken, key := file(t, tokenC+"\n"), file(t, "-----BEGIN")
	config := file(t, `{
		"node_id": 3, "cluster_nodes": ["10.0.0.1:7600", "10.0.0.2:7600", "10.0.0.3:7600"],
		"auth_token": "`+secretA+`", "auth_token_next": "`+secretB+`", "data_dir": "/d", "port": "7777",
		"bind_addr": "0.0.0.0", "advertise_addr": "10.9.9.9:7700", "api_addr": ":8080", "api_token": "`+tokenA+` `+tokenB+`",
		"api_read_token_file": "`+readToken+`", "api_require_token": true, "api_tls_cert": "/c.pem", "api_tls_key": "`+key+`", "data_addr": "10.0.0.3:0",
		"election_timeout_ms": 900, "health_check_timeout_ms": 300, "health_check_interval_ms": 20,
		"max_failover_lag": 18446744073709551615, "fencing_token_path": "/f/fencing.json", "lease_file": "/run/lease", "log_level": "debug", "enabled": true}`)
	s, err := load(t, nil, "--config", config)
	if err != nil {
		t.Fatal(err)
	}
	want := Settings{
		Enabled: true,
		Node: ha.Config{
			NodeID:              3,
			Nodes:               []string{"10.0.0.1:7600", "10.0.0.2:7600", "10.0.0.3:7600"},
			AdvertiseAddr:       "10.9.9.9:7700",
			BindAddr:            "0.0.0.0:7777",
			Secret:              protocol.NewSecret(secretA),
			OtherSecrets:        []protocol.Secret{protocol.NewSecret(secretB)},
			DataDir:             "/d",
			FencingTokenPath:    "/f/fencing.json",
			LeaseFile:           "/run/lease",
			HealthCheckInterval: 20 * time.Millisecond,
			HealthCheckTimeout:  300 * time.Millisecond,
			ElectionTimeout:     900 * time.Millisecond,
			MaxFailoverLag:      1<<64 - 1,
			API: ha.APITokens{
				Admin:    []protocol.Secret{protocol.NewSecret(tokenA), protocol.NewSecret(tokenB)},
				Read:     []protocol.Secret{protocol.NewSecret(tokenC)},
				Required: true,
			},
		},
		APITLS:   true,
		APICert:  "/c.pem",
		APIKey:   key,
		APIAddr:  "0.0.0.0:8080",
		DataAddr: "10.0.0.3:0",
		LogLevel: hclog.Debug,
	}
	if s.Node.Reload == nil {
		t.Error("nothing to reload by")
	}
	s.Node.Reload = nil // functions cannot be compared
	if !reflect.DeepEqual(s, want) {
		t.Errorf("got  %+v\nwant %+v", s, want)
	}
	for actual, advertised := range map[string]string{"0.0.0.0:8080": "10.9.9.9:8080", "[::]:8080": "10.9.9.9:8080", "10.0.0.3:41": "10.0.0.3:41", "127.0.0.1:5": "127.0.0.1:5"} {
		addr, err := net.ResolveTCPAddr("tcp", actual)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Advertise(addr); got != advertised {
			t.Errorf("Advertise(%s) = %s, want %s", actual, got, advertised)
		}
	}
}

func TestPrecedence(t *testing.T) {
	inFile := file(t, `{"data_dir": "/file", "log_level": "warn", "max_failover_lag": 5, "auth_token": "`+secretB+`"}`)
	tokenFile := file(t, secretA+"\n")
	s, err := load(t, environment("DATA_DIR", "/env", "LOG_LEVEL", "  ", "AUTH_TOKEN", secretB, "CONFIG", "/nowhere"),
		"--config", inFile, "--data-dir", "/flag", "--auth-token-file", tokenFile)
	if err != nil {
		t.Fatal(err)
	}
	if s.Node.DataDir != "/flag" || s.LogLevel != hclog.Warn || s.Node.MaxFailoverLag != 5 || string(s.Node.Secret.Bytes()) != secretA {
		t.Errorf("got %s %s %d %q", s.Node.DataDir, s.LogLevel, s.Node.MaxFailoverLag, s.Node.Secret.Bytes())
	}
	// The environment over the file; a variable's text over the file's file.
	inFile = file(t, `{"data_dir": "/file", "auth_token_file": "/nowhere"}`)
	s, err = load(t, environment("DATA_DIR", "/env", "AUTH_TOKEN", " "+secretB+"\n"), "--config", inFile)
	if err != nil {
		t.Fatal(err)
	}
	if s.Node.DataDir != "/env" || string(s.Node.Secret.Bytes()) != secretB {
		t.Errorf("got %s %q", s.Node.DataDir, s.Node.Secret.Bytes())
	}
}

func TestSwitchedOff(t *testing.T) {
	s, err := load(t, []string{"AIONDB_HA_ENABLED=false", "AIONDB_HA_NODE_ID=0"})
	if err != nil || s.Enabled {
		t.Errorf("enabled %v, %v: a node that is switched off needs no settings", s.Enabled, err)
	}
	if s, err = load(t, environment("ENABLED", "false"), "--enabled"); err != nil || !s.Enabled {
		t.Errorf("enabled %v, %v: the flag goes over the environment", s.Enabled, err)
	}
}

func TestFaults(t *testing.T) {
	world := file(t, secretA)
	if err := os.Chmod(world, 0o644); err != nil {
		t.Fatal(err)
	}
	worldConfig := file(t, `{"auth_token": "`+secretA+`"}`)
	if err := os.Chmod(worldConfig, 0o644); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, c := range []struct {
		name    string
		changes []string
		args    []string
		want    []string // each a part of one line; as many lines as parts
	}{
		{"nothing set", []string{"NODE_ID", "", "CLUSTER_NODES", "", "AUTH_TOKEN", "", "DATA_DIR", ""}, nil,
			[]string{"AIONDB_HA_CLUSTER_NODES is not set", "AIONDB_HA_NODE_ID is not set", "AIONDB_HA_AUTH_TOKEN_FILE is not set, nor is AIONDB_HA_AUTH_TOKEN", "AIONDB_HA_DATA_DIR is not set"}},
		{"node ID 0", []string{"NODE_ID", "0"}, nil, []string{`AIONDB_HA_NODE_ID: "0" is not a whole number from 1 up`}},
		{"node ID above the list", []string{"NODE_ID", "4"}, nil, []string{"AIONDB_HA_NODE_ID: there is no node 4 among 3: give this node's position in the list, 1 to 3"}},
		{"node ID in words", nil, []string{"--node-id", "two"}, []string{`--node-id: "two" is not`}},
		{"node ID huge", nil, []string{"--node-id", "99999999999999999999"}, []string{"--node-id"}},
		{"too many nodes", []string{"CLUSTER_NODES", manyNodes(16)}, nil, []string{"at most 15 can vote"}},
		{"a node without port", []string{"CLUSTER_NODES", "127.0.0.1:1,127.0.0.1:2,127.0.0.1"}, nil, []string{"node 3: \"127.0.0.1\" is no address"}},
		{"a node with port 0", []string{"CLUSTER_NODES", "127.0.0.1:1,127.0.0.1:2,127.0.0.1:0"}, nil, []string{"node 3: \"127.0.0.1:0\": the port"}},
		{"a node everywhere", []string{"CLUSTER_NODES", "127.0.0.1:1,127.0.0.1:2,0.0.0.0:3"}, nil, []string{"node 3: 0.0.0.0:3 means every interface"}},
		{"a node twice", []string{"CLUSTER_NODES", "127.0.0.1:1,127.0.0.1:2,127.0.0.1:1"}, nil, []string{"nodes 1 and 3 are both 127.0.0.1:1"}},
		{"loopback beside others", []string{"CLUSTER_NODES", "10.0.0.1:1,127.0.0.1:2"}, nil, []string{"AIONDB_HA_ADVERTISE_ADDR: 127.0.0.1:2 is this machine alone, but node 1 is at 10.0.0.1:1"}},
		{"advertise everything", []string{"ADVERTISE_ADDR", "[::]:7600"}, nil, []string{"AIONDB_HA_ADVERTISE_ADDR: [::]:7600 means every interface"}},
		{"short token", []string{"AUTH_TOKEN", "geheim"}, nil, []string{"AIONDB_HA_AUTH_TOKEN: the secret has 6 bytes, it needs 32"}},
		{"short next token", []string{"AUTH_TOKEN_NEXT", "geheim"}, nil, []string{"AIONDB_HA_AUTH_TOKEN_NEXT: the secret has 6 bytes"}},
		{"token and file", []string{"AUTH_TOKEN_FILE", world}, nil, []string{"AIONDB_HA_AUTH_TOKEN and AIONDB_HA_AUTH_TOKEN_FILE are both set: unset one"}},
		{"token file for all", nil, []string{"--auth-token-file", world}, []string{"--auth-token-file: every user of this machine may use"}},
		{"token file missing", nil, []string{"--auth-token-file", filepath.Join(dir, "none")}, []string{"--auth-token-file: there is no such file that can be read (no such file or directory)"}},
		{"token file a directory", nil, []string{"--auth-token-file", dir}, []string{"is not a regular file"}},
		{"config for all, with a secret", []string{"AUTH_TOKEN", "", "CONFIG", worldConfig}, nil, []string{"holds a secret: every user"}},
		{"no port", []string{"PORT", "70000"}, nil, []string{`AIONDB_HA_PORT: "70000" is not a whole number from 1 to 65535`}},
		{"bind without sense", []string{"BIND_ADDR", "a:b:c"}, nil, []string{`AIONDB_HA_BIND_ADDR: "a:b:c" is no address`}},
		{"bind port 0", []string{"BIND_ADDR", "127.0.0.1:0"}, nil, []string{"AIONDB_HA_BIND_ADDR"}},
		{"two ports", []string{"BIND_ADDR", "127.0.0.1:5", "PORT", "6"}, nil, []string{"AIONDB_HA_BIND_ADDR: port 5 contradicts AIONDB_HA_PORT, 6"}},
		{"API without port", nil, []string{"--api-addr", "127.0.0.1"}, []string{`--api-addr: "127.0.0.1" is no address`}},
		{"API with a wrong port", nil, []string{"--api-addr", "127.0.0.1:http"}, []string{"--api-addr"}},
		{"API and data together", nil, []string{"--api-addr", "127.0.0.1:9", "--data-addr", "127.0.0.1:9"}, []string{"--data-addr: the data address 127.0.0.1:9 is also the API's"}},
		{"no room for ports", []string{"PORT", "65500"}, nil, []string{"AIONDB_HA_API_ADDR is not set, and the HA port 65500", "AIONDB_HA_DATA_ADDR is not set"}},
		{"timeout not above interval", []string{"HEALTH_CHECK_INTERVAL_MS", "250"}, nil, []string{"AIONDB_HA_HEALTH_CHECK_TIMEOUT_MS: the check timeout, 250 ms, must be longer than the check interval, 250 ms"}},
		{"election not above timeout", []string{"ELECTION_TIMEOUT_MS", "250"}, nil, []string{"AIONDB_HA_ELECTION_TIMEOUT_MS: the election timeout, 250 ms, must be longer than the check timeout, 250 ms"}},
		{"timeout too short", []string{"HEALTH_CHECK_TIMEOUT_MS", "10", "HEALTH_CHECK_INTERVAL_MS", "5"}, nil, []string{"10 ms is too short"}},
		{"a time in seconds", []string{"ELECTION_TIMEOUT_MS", "1s"}, nil, []string{`AIONDB_HA_ELECTION_TIMEOUT_MS: "1s" is not a whole number from 1 to 600000`}},
		{"a negative lag", []string{"MAX_FAILOVER_LAG", "-1"}, nil, []string{"AIONDB_HA_MAX_FAILOVER_LAG"}},
		{"no level", []string{"LOG_LEVEL", "loud"}, nil, []string{`"loud" is no level`}},
		{"neither on nor off", []string{"ENABLED", "maybe"}, nil, []string{`AIONDB_HA_ENABLED: "maybe" is neither true nor false`}},
		{"config missing", nil, []string{"--config", filepath.Join(dir, "none.json")}, []string{"--config: the config file cannot be read"}},
		{"config no object", nil, []string{"--config", file(t, `[1]`)}, []string{"is not a JSON object"}},
		{"config cut off", nil, []string{"--config", file(t, `{"port": 7600`)}, []string{"the closing } is missing"}},
		{"config with a tail", nil, []string{"--config", file(t, `{} {}`)}, []string{"after the closing }"}},
		{"config broken", nil, []string{"--config", file(t, `{"port": 7600,}`)}, []string{"mend the JSON"}},
		{"config with an object", nil, []string{"--config", file(t, `{"port": {}}`)}, []string{`"port" must be text`}},
		{"config with a mixed list", nil, []string{"--config", file(t, `{"cluster_nodes": ["a:1", 2]}`)}, []string{`"cluster_nodes" must be text`}},
		{"config key twice", nil, []string{"--config", file(t, `{"port": 7600, "port": 7601}`)}, []string{`"port" is there twice`}},
		{"config key misspelt", nil, []string{"--config", file(t, `{"cluster_node": "a:1"}`)}, []string{`unknown setting "cluster_node": did you mean cluster_nodes?`}},
		{"config key from nowhere", nil, []string{"--config", file(t, `{"zzzzzzzzzzzz": 1}`)}, []string{`unknown setting "zzzzzzzzzzzz": see aiondb-ha help serve`}},
		{"public API, no token", []string{"API_ADDR", "0.0.0.0:7700"}, nil, []string{"AIONDB_HA_API_ADDR: 0.0.0.0:7700 is reached from other machines, and nobody would be asked for a token: set AIONDB_HA_API_TOKEN_FILE"}},
		{"public API by name, no token", []string{"API_ADDR", "db1.example.com:7700"}, nil, []string{"nobody would be asked for a token"}},
		{"public API, token not required", []string{"API_ADDR", "10.0.0.1:1", "API_TOKEN", tokenA, "API_REQUIRE_TOKEN", "no"}, nil, []string{"AIONDB_HA_API_REQUIRE_TOKEN: 10.0.0.1:1 is reached from other machines, so a token is always asked for"}},
		{"public API, no TLS", []string{"API_ADDR", ":7700", "API_TOKEN", tokenA, "API_TLS", "off"}, nil, []string{"AIONDB_HA_API_TLS: 0.0.0.0:7700 is reached from other machines, and tokens would cross the network in the clear"}},
		{"a token not required", []string{"API_TOKEN", tokenA, "API_REQUIRE_TOKEN", "false"}, nil, []string{"AIONDB_HA_API_REQUIRE_TOKEN: no token is to be asked for, but one is set"}},
		{"a short API token", []string{"API_TOKEN", "geheim"}, nil, []string{"AIONDB_HA_API_TOKEN, AIONDB_HA_API_READ_TOKEN): admin token 1: want 32 to 512"}},
		{"an API token that no header takes", []string{"API_TOKEN", secretB + "\xff"}, nil, []string{"admin token 1"}},
		{"the secret as API token", []string{"API_TOKEN", secretA}, nil, []string{"admin token 1 is also the cluster secret"}},
		{"one token for both", []string{"API_TOKEN", tokenA, "API_READ_TOKEN", tokenA}, nil, []string{"read token 1 is also the cluster secret or a token of another kind"}},
		{"five tokens", []string{"API_READ_TOKEN", strings.Join([]string{tokenA, tokenB, tokenC, tokenA + "1", tokenA + "2"}, " ")}, nil, []string{"5 read tokens: at most 4"}},
		{"API token file for all", nil, []string{"--api-token-file", world}, []string{"--api-token-file: every user of this machine may use"}},
		{"API token file empty", nil, []string{"--api-read-token-file", file(t, "\n")}, []string{"--api-read-token-file: there is no token in it"}},
		{"a certificate without key", []string{"API_TLS_CERT", "/c"}, nil, []string{"AIONDB_HA_API_TLS_KEY is not set, but AIONDB_HA_API_TLS_CERT is"}},
		{"a key without certificate", []string{"API_TLS_KEY", "/c"}, nil, []string{"AIONDB_HA_API_TLS_CERT is not set, but AIONDB_HA_API_TLS_KEY is"}},
		{"a key for all", []string{"API_TLS_CERT", world, "API_TLS_KEY", world}, nil, []string{"AIONDB_HA_API_TLS_KEY: the private key cannot be used: every user of this machine"}},
		{"a certificate without TLS", []string{"API_TLS_CERT", "/c", "API_TLS_KEY", file(t, ""), "API_TLS", "off"}, nil, []string{"AIONDB_HA_API_TLS: TLS is off, but AIONDB_HA_API_TLS_CERT names a certificate"}},
		{"many at once", []string{"NODE_ID", "9", "AUTH_TOKEN", "short", "LOG_LEVEL", "loud", "ELECTION_TIMEOUT_MS", "1"}, nil, []string{"loud", "no node 9", "5 bytes", "election timeout"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if strings.Contains(c.name, "for all") && runtime.GOOS == "windows" {
				t.Skip("no file modes here")
			}
			_, err := load(t, environment(c.changes...), c.args...)
			if err == nil {
				t.Fatal("no fault found")
			}
			lines := strings.Split(err.Error(), "\n")
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("no line says %q", want)
				}
			}
			if len(lines) != len(c.want) {
				t.Errorf("%d lines, want %d", len(lines), len(c.want))
			}
			if t.Failed() {
				t.Logf("got:\n%v", err)
			}
			if strings.Contains(err.Error(), secretA) || strings.Contains(err.Error(), "geheim") {
				t.Errorf("a secret in an error: %v", err)
			}
		})
	}
}

func manyNodes(n int) string {
	var nodes []string
	for i := range n {
		nodes = append(nodes, net.JoinHostPort("127.0.0.1", string(rune('1'+i%9))+string(rune('0'+i/9))))
	}
	return strings.Join(nodes, ",")
}

func TestSecretsAreNoFlags(t *testing.T) {
	for _, name := range []string{"--auth-token", "--auth-token-next", "--api-token", "--api-read-token"} {
		fs := flag.NewFlagSet("serve", flag.ContinueOnError)
		fs.SetOutput(io.Discard)
		flags := Register(fs)
		if err := fs.Parse([]string{name, secretA}); err != nil {
			t.Errorf("%s: package flag writes the value into its error: %v", name, err)
		}
		err := flags.Err()
		if err == nil || !strings.Contains(err.Error(), name+"-file FILE") || strings.Contains(err.Error(), secretA) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestUnknownVariablesAreTold(t *testing.T) {
	s, err := load(t, environment("NODEID", "3", "EXIT_WITH_STDIN", "1", "ALGORITHM", "raft", "API_CA", "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"AIONDB_HA_NODEID is not a setting: did you mean AIONDB_HA_NODE_ID?"}
	if !reflect.DeepEqual(s.Warnings, want) {
		t.Errorf("warnings %q, want %q", s.Warnings, want)
	}
}

func TestBindAddress(t *testing.T) {
	for _, c := range []struct{ bind, port, want, api, data string }{
		{"", "", "127.0.0.1:7601", "127.0.0.1:7701", "127.0.0.1:7801"},
		{"", "9000", "127.0.0.1:9000", "127.0.0.1:9100", "127.0.0.1:9200"},
		{"0.0.0.0", "", "0.0.0.0:7601", "127.0.0.1:7701", "0.0.0.0:7801"},
		{"::", "", "[::]:7601", "127.0.0.1:7701", "[::]:7801"},
		{":9000", "", "0.0.0.0:9000", "127.0.0.1:9100", "0.0.0.0:9200"},
		{"[::1]:9000", "9000", "[::1]:9000", "127.0.0.1:9100", "[::1]:9200"},
		{"db1.example.com", "", "db1.example.com:7601", "127.0.0.1:7701", "db1.example.com:7801"},
	} {
		s, err := load(t, environment("BIND_ADDR", c.bind, "PORT", c.port))
		if err != nil || s.Node.BindAddr != c.want || s.APIAddr != c.api || s.DataAddr != c.data {
			t.Errorf("bind %q port %q: %s %s %s, %v; want %s %s %s", c.bind, c.port, s.Node.BindAddr, s.APIAddr, s.DataAddr, err, c.want, c.api, c.data)
		}
	}
}

func TestNearest(t *testing.T) {
	names := []string{"status", "switchover", "serve", "shards"}
	for name, want := range map[string]string{"statsu": "status", "switch-over": "switchover", "serv": "serve", "shard": "shards", "xyzzy": "", "": ""} {
		if got := Nearest(name, names); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestAPIDefaults(t *testing.T) {
	key := file(t, "")
	for _, c := range []struct {
		changes       []string
		tls, required bool
	}{
		{nil, false, false},
		{[]string{"API_ADDR", "localhost:7700"}, false, false},
		{[]string{"API_ADDR", "[::1]:7700", "API_TLS", "on"}, true, false},
		{[]string{"API_TLS_CERT", "/c", "API_TLS_KEY", key}, true, false},
		{[]string{"API_ADDR", "10.0.0.1:7700", "API_TOKEN", tokenA}, true, false},
		{[]string{"API_ADDR", "10.0.0.1:7700", "API_REQUIRE_TOKEN", "true"}, true, true},
	} {
		s, err := load(t, environment(c.changes...))
		if err != nil || s.APITLS != c.tls || s.Node.API.Required != c.required {
			t.Errorf("%v: TLS %v, required %v, %v", c.changes, s.APITLS, s.Node.API.Required, err)
		}
	}
}

func TestReadToken(t *testing.T) {
	s, err := ReadToken(file(t, "\n "+tokenA+"\n"+tokenB+"\n"))
	if err != nil || string(s.Bytes()) != tokenA {
		t.Errorf("%q, %v", s.Bytes(), err)
	}
	if _, err := ReadToken(file(t, " \n")); err == nil {
		t.Error("an empty file has no token")
	}
}

// Secrets and certificates are read anew, by the same rules; the files of the
// other secrets may come and go.
func TestCredentialsAreReadAnew(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	token := write("secret", secretA+"\n")
	s, err := load(t, nil, "--node-id", "1", "--cluster-nodes", "10.0.0.1:7600", "--auth-token-file", token, "--data-dir", "/d",
		"--tls-ca", write("ca.pem", "ca"), "--tls-cert", write("cert.pem", "cert"), "--tls-key", write("key.pem", "key"))
	if err != nil { // what is in the PEM files is looked into by the node
		t.Fatal(err)
	}
	for _, step := range []struct {
		name, content string
		want          []string // the secrets; nil: refused
		says          string
	}{
		{"secret", secretA, []string{secretA}, ""},
		{"secret.next", secretB + "\n", []string{secretA, secretB}, ""},
		{"secret.previous", "  \n", []string{secretA, secretB}, ""},
		{"secret.previous", secretA, []string{secretA, secretB}, ""},
		{"secret", secretB, []string{secretB, secretA}, ""},
		{"secret.next", "", []string{secretB, secretA}, ""},
		{"secret.previous", "short", nil, "it needs 32"},
		{"secret.previous", "", []string{secretB}, ""},
		{"secret", "", nil, "it needs 32"},
		{"secret", secretA, []string{secretA}, ""},
		{"key.pem", "", nil, "AIONDB_HA_TLS_KEY"},
	} {
		write(step.name, step.content)
		c, err := s.Node.Reload()
		if step.want == nil {
			if err == nil || !strings.Contains(err.Error(), step.says) && !strings.Contains(err.Error(), "key.pem is empty") {
				t.Errorf("%s = %q: %v", step.name, step.content, err)
			}
			continue
		}
		got := []string{string(c.Secret.Bytes())}
		for _, o := range c.OtherSecrets {
			got = append(got, string(o.Bytes()))
		}
		if err != nil || !slices.Equal(got, step.want) || string(c.Key.Bytes()) != "key" || string(c.CA) != "ca" {
			t.Errorf("%s = %q: %q, %v", step.name, step.content, got, err)
		}
	}
}

func TestCertificatesGoTogether(t *testing.T) {
	dir := t.TempDir()
	key := filepath.Join(dir, "key.pem")
	if err := os.WriteFile(key, []byte("key"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := load(t, nil, "--node-id", "1", "--cluster-nodes", "10.0.0.1:7600", "--data-dir", "/d", "--tls-key", key, "--tls-ca", filepath.Join(dir, "none"))
	for _, want := range []string{"AIONDB_HA_TLS_CERT is not set", "chmod 600", "no such file"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q in %v", want, err)
		}
	}
}

func TestProfileAndWitness(t *testing.T) {
	for _, test := range []struct {
		environ                     []string
		interval, timeout, election time.Duration
		witness                     bool
	}{
		{environment("PROFILE", "default"), 50, 250, 600, false},
		{environment("PROFILE", "fast", "WITNESS", "true"), 10, 40, 120, true},
		{environment("PROFILE", "Fast", "HEALTH_CHECK_TIMEOUT_MS", "60"), 10, 60, 120, false},
	} {
		s, err := load(t, test.environ)
		if n := s.Node; err != nil || n.HealthCheckInterval != test.interval*time.Millisecond || n.HealthCheckTimeout != test.timeout*time.Millisecond ||
			n.ElectionTimeout != test.election*time.Millisecond || n.Witness != test.witness {
			t.Errorf("%q: %+v, %v", test.environ, n, err)
		}
	}
	for setting, want := range map[string]string{"PROFILE": "no profile", "WITNESS": "neither true nor false"} {
		if _, err := load(t, environment(setting, "warp")); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "AIONDB_HA_"+setting) {
			t.Errorf("%s=warp: %v", setting, err)
		}
	}
	// The order of the times is checked of what comes out of profile and settings.
	if _, err := load(t, environment("PROFILE", "fast", "HEALTH_CHECK_TIMEOUT_MS", "130")); err == nil {
		t.Error("an election timeout below the check timeout is taken")
	}
}
