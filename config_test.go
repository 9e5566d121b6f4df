package ha

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aiondb/aiondb-ha/internal/leak"
)

func validConfig() Config {
	return Config{
		NodeID:  2,
		Nodes:   []string{"10.0.0.1:7600", "10.0.0.2:7600", "10.0.0.3:7600"},
		Secret:  NewSecret(bytes.Repeat([]byte("s"), 32)),
		DataDir: "/nonexistent",
	}
}

func TestConfigDefaults(t *testing.T) {
	c := validConfig().withDefaults()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	if c.AdvertiseAddr != "10.0.0.2:7600" || c.BindAddr != c.AdvertiseAddr || c.DatabaseAddr != c.AdvertiseAddr {
		t.Errorf("addresses: advertise %s, bind %s, database %s", c.AdvertiseAddr, c.BindAddr, c.DatabaseAddr)
	}
	if got, want := c.FencingTokenPath, "/nonexistent/ha/node-2/fencing.json"; got != want {
		t.Errorf("fencing token path %s, want %s", got, want)
	}
	if c.HealthCheckInterval >= c.HealthCheckTimeout || c.HealthCheckTimeout >= c.ElectionTimeout {
		t.Errorf("default times are not in order: %s, %s, %s", c.HealthCheckInterval, c.HealthCheckTimeout, c.ElectionTimeout)
	}
}

func TestConfigFaults(t *testing.T) {
	secret := "not-to-be-seen"
	for _, tc := range []struct {
		name string
		set  func(*Config)
		want string
	}{
		{"no nodes", func(c *Config) { c.Nodes = nil }, "no cluster nodes"},
		{"too many nodes", func(c *Config) {
			for i := range MaxNodes + 1 {
				c.Nodes = append(c.Nodes, "10.0.1."+string(rune('a'+i))+":1")
			}
		}, "at most 15 can vote"},
		{"node ID 0", func(c *Config) { c.NodeID = 0 }, "node ID 0 is out of range"},
		{"node ID above", func(c *Config) { c.NodeID = 4 }, "node ID 4 is out of range"},
		{"no port", func(c *Config) { c.Nodes[0] = "10.0.0.1" }, "cluster node 1: \"10.0.0.1\": want host:port"},
		{"port 0", func(c *Config) { c.Nodes[0] = "10.0.0.1:0" }, "from 1 to 65535"},
		{"twice", func(c *Config) { c.Nodes[0] = c.Nodes[2] }, "cluster nodes 1 and 3 are both"},
		{"unspecified", func(c *Config) { c.AdvertiseAddr = "0.0.0.0:7600" }, "nobody else can dial it"},
		{"loopback among others", func(c *Config) { c.AdvertiseAddr = "127.0.0.1:7600" }, "this machine alone"},
		{"bind", func(c *Config) { c.BindAddr = "nonsense" }, "bind address \"nonsense\""},
		{"short secret", func(c *Config) { c.Secret = NewSecret([]byte(secret)) }, "cluster secret: 14 bytes, at least 32"},
		{"short old secret", func(c *Config) { c.OtherSecrets = []Secret{NewSecret([]byte(secret))} }, "other cluster secret 1: 14 bytes"},
		{"no data dir", func(c *Config) { c.DataDir = "" }, "no data directory"},
		{"timeout below interval", func(c *Config) { c.HealthCheckInterval = 300 * time.Millisecond }, "must be more than the health check interval"},
		{"election below timeout", func(c *Config) { c.ElectionTimeout = 200 * time.Millisecond }, "must be more than the health check timeout"},
		{"too fast", func(c *Config) {
			c.HealthCheckInterval, c.HealthCheckTimeout = time.Millisecond, 2*time.Millisecond
		}, "a slow disk looks like a dead node"},
		{"negative", func(c *Config) { c.HealthCheckInterval = -1 }, "want more than 0"},
		{"too slow", func(c *Config) { c.ElectionTimeout = time.Hour }, "at most 10m0s"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := validConfig()
			tc.set(&c)
			err := c.Validate()
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("got %v, want an error with %q", err, tc.want)
			}
			if strings.Contains(err.Error(), secret) {
				t.Fatalf("the error shows a secret: %v", err)
			}
		})
	}
	c := Config{}
	if err := c.Validate(); strings.Count(err.Error(), "\n") < 3 {
		t.Errorf("not every fault is reported at once: %v", err)
	}
}

// Whoever prints a configuration, a node or its parts shows no secret.
func TestConfigShowsNoSecret(t *testing.T) {
	const secret, old = "the-secret-of-this-cluster-0123456789", "the-one-that-went-before-0123456789ab"
	c := Config{NodeID: 1, Nodes: []string{freeAddr(t)}, DataDir: t.TempDir(), Secret: NewSecret([]byte(secret)), OtherSecrets: []Secret{NewSecret([]byte(old))}}
	p, err := Prepare(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	asJSON, err := json.Marshal(struct {
		Config
		Logger *int // an interface that JSON cannot write
	}{Config: c})
	if err != nil {
		t.Fatal(err)
	}
	wrong := c
	wrong.NodeID, wrong.DataDir, wrong.ElectionTimeout = 9, "", -1
	shown := []string{string(asJSON), wrong.Validate().Error()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		shown = append(shown, fmt.Sprintf(verb, c), fmt.Sprintf(verb, &c), fmt.Sprintf(verb, p), fmt.Sprintf(verb, *p))
	}
	for _, out := range shown {
		for _, s := range []string{secret, old} {
			if found := leak.Find([]byte(out), []byte(s)); found != "" {
				t.Errorf("a secret shows, %s", found)
			}
		}
	}
}
