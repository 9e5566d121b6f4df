package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	ha "github.com/aiondb/aiondb-ha"
	"github.com/aiondb/aiondb-ha/internal/clock"
	"github.com/aiondb/aiondb-ha/internal/httpapi"
	"github.com/aiondb/aiondb-ha/internal/settings"
	"github.com/aiondb/aiondb-ha/internal/term"
	"github.com/aiondb/aiondb-ha/internal/walplane"
)

const (
	// exitEnv makes serve end when its standard input does, so that a parent
	// that dies leaves no process behind.
	exitEnv = "AIONDB_HA_EXIT_WITH_STDIN"

	// closeTimeout bounds a clean exit, handing the primacy over included.
	closeTimeout = 10 * time.Second
	// drainTimeout bounds how long requests under way may go on at the end.
	drainTimeout = time.Second

	// reloadEvery is how often files with API tokens are looked at.
	reloadEvery = 2 * time.Second
)

func runCommands() []command {
	return []command{
		{
			name: "demo", short: "three real nodes on this machine; the primary is killed, another takes over",
			raw: func(a *app, args []string) int { return runDemo(a.ctx, args, a.stdout, a.stderr) },
		},
		{
			name: "torture", short: "real nodes under every fault there is, and a verdict",
			raw: func(a *app, args []string) int { return runTorture(a.ctx, args, a.stdout, a.stderr) },
		},
		{
			name: "serve", short: "run one node",
			long: "Every setting is a flag, a variable or a key of the config file (with underscores); a flag\n" +
				"goes over the environment, the environment over the file. Logs go to standard error. SIGTERM\n" +
				"or Ctrl-C hands the primacy over and ends; a second one ends at once. Secrets and certificates\n" +
				"that change on disk are taken within seconds, or at once on SIGHUP.",
			examples: []string{
				"aiondb-ha token -o secret",
				"aiondb-ha serve --node-id 1 --cluster-nodes 10.0.0.1:7600,10.0.0.2:7600,10.0.0.3:7600 \\",
				"    --auth-token-file secret --data-dir /var/lib/aiondb",
				"aiondb-ha serve --config /etc/aiondb-ha.json",
			},
			setup: setupServe,
		},
	}
}

// writeSettings shows every setting as a flag; the other spellings follow.
func writeSettings(w io.Writer, s term.Style) {
	fmt.Fprintf(w, "\n%s\n", s.Bold("settings:"))
	tab := term.NewTable()
	for _, o := range settings.Options() {
		name := "--" + o.Name + " " + o.Value
		if o.Secret {
			name = o.Env()
		}
		help := o.Help
		if o.Default != "" {
			help += s.Dim(" (default: " + o.Default + ")")
		}
		tab.Row("  "+name, help)
	}
	tab.Row("  --config FILE", "a JSON object of settings")
	_ = tab.Write(w, s)
	id := settings.Options()[0]
	fmt.Fprintf(w, "\n--%s is %s in the environment and %q in the config file; so with all of them.\n", id.Name, id.Env(), id.FileKey())
}

func setupServe(fs *flag.FlagSet) runner {
	flags := settings.Register(fs)
	return func(a *app, _ *input) error {
		if err := flags.Err(); err != nil {
			return misused("%v", err)
		}
		s, err := settings.Load(flags, a.environ)
		if err != nil {
			return err
		}
		if !s.Enabled {
			return errors.New("this node is switched off: set AIONDB_HA_ENABLED to true to serve")
		}
		return a.serve(s, func() (settings.Settings, error) { return settings.Load(flags, a.environ) })
	}
}

// server is one node being served, as far as it has come.
type server struct {
	settings settings.Settings
	log      hclog.Logger
	api      net.Listener
	data     net.Listener
	prepared *ha.Prepared
	db       *walplane.DB
	node     *ha.Node
	certs    *httpapi.Certificates // nil: no TLS
	http     *http.Server
	tasks    sync.WaitGroup
	failed   chan error // why the API ended by itself
}

// serve runs a node until the context ends. Meanwhile it asks load now and then
// for what may change while a node runs.
func (a *app) serve(s settings.Settings, load func() (settings.Settings, error)) error {
	ctx, stop := context.WithCancel(a.ctx)
	defer stop()
	color := hclog.ColorOff
	if term.For(a.stderr, a.getenv).On() {
		color = hclog.ForceColor
	}
	srv := &server{settings: s, failed: make(chan error, 1), log: hclog.New(&hclog.LoggerOptions{
		Name: "aiondb-ha", Level: s.LogLevel, Output: a.stderr, Color: color, TimeFormat: "2006-01-02T15:04:05.000Z07:00",
	})}
	for _, w := range s.Warnings {
		srv.log.Warn(w)
	}
	if err := srv.open(ctx); err != nil {
		return errors.Join(err, srv.abandon())
	}
	srv.serveHTTP()
	secret, tokens := srv.forget()
	srv.tasks.Go(func() { srv.follow(ctx, secret, tokens, load) })
	if a.getenv(exitEnv) == "1" {
		go func() {
			_, _ = io.Copy(io.Discard, a.stdin)
			stop()
		}()
	}
	data := "none, a witness"
	if srv.data != nil {
		data = srv.data.Addr().String()
	}
	fmt.Fprintf(a.stdout, "node %s ready: ha %s, api %s://%s, data %s, state %s\n",
		srv.node.ID(), s.Node.BindAddr, srv.scheme(), srv.api.Addr(), data, s.Node.StateDir())

	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	defer signal.Stop(reload)
	var failure error
	for running := true; running; {
		select {
		case <-reload:
			if srv.node.ReloadCredentials() == nil { // an error is in the log
				srv.log.Info("secrets and certificates were read again")
			}
		case <-ctx.Done():
			running = false
		case failure = <-srv.failed:
			running = false
		}
	}
	stop()
	closed := make(chan error, 1)
	go func() { closed <- srv.close() }()
	limit := time.NewTimer(closeTimeout)
	defer limit.Stop()
	select {
	case err := <-closed:
		return errors.Join(failure, err)
	case <-limit.C:
		return errors.Join(failure, fmt.Errorf("the node did not close within %s: ended without", closeTimeout))
	}
}

// open takes every port first, then proves the secret, then opens what is on
// disk: what fails early has changed nothing.
func (s *server) open(ctx context.Context) (err error) {
	if s.api, err = listen(ctx, "API", "api-addr", s.settings.APIAddr); err != nil {
		return err
	}
	cfg := s.settings.Node
	cfg.Logger, cfg.Version = s.log, readVersion().Version
	cfg.APIAddr = s.settings.Advertise(s.api.Addr())
	if s.settings.APITLS {
		cfg.APIAddr = "https://" + cfg.APIAddr
		if s.certs, err = s.certificates(); err != nil {
			return err
		}
		cfg.APICertificate = s.certs.Status
	}
	if cfg.Witness {
		return s.openWitness(ctx, cfg)
	}
	if s.data, err = listen(ctx, "data", "data-addr", s.settings.DataAddr); err != nil {
		return err
	}
	cfg.DatabaseAddr = s.settings.Advertise(s.data.Addr())
	if s.prepared, err = ha.Prepare(ctx, cfg); err != nil {
		s.prepared = nil
		return err
	}
	streams, err := s.prepared.DataListener(s.data)
	if err != nil {
		return err
	}
	s.db, err = walplane.Open(walplane.Config{
		Dir:      filepath.Join(cfg.DataDir, "wal"),
		NodeID:   cfg.NodeID,
		Voters:   len(cfg.Nodes),
		Listener: streams,
		Dial:     s.prepared.DialData,
		Logger:   s.log.Named("wal"),
		Clock:    clock.Boot,
	})
	if err != nil {
		s.db = nil
		return err
	}
	prepared := s.prepared
	s.prepared = nil // Open takes it over, and gives it up when it fails
	if s.node, err = prepared.Open(ctx, s.db); err != nil {
		s.node = nil
	}
	return err
}

// openWitness opens a node without data. One that has some is not made a witness
// by a setting: what it has may have been counted on.
func (s *server) openWitness(ctx context.Context, cfg ha.Config) (err error) {
	wal := filepath.Join(cfg.DataDir, "wal")
	if entries, err := os.ReadDir(wal); err == nil && len(entries) > 0 {
		return fmt.Errorf("this node is set to be a witness (AIONDB_HA_WITNESS), and %s holds data that may have been counted on: "+
			"move it away if the cluster does without it", wal)
	}
	if s.prepared, err = ha.Prepare(ctx, cfg); err != nil {
		s.prepared = nil
		return err
	}
	prepared := s.prepared
	s.prepared = nil // Open takes it over, and gives it up when it fails
	if s.node, err = prepared.Open(ctx, nil); err != nil {
		s.node = nil
	}
	return err
}

// dataHandler serves the database's part of the API.
func (s *server) dataHandler() http.Handler {
	if s.db != nil {
		return s.db.Handler()
	}
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, `{"error":"this node is a witness: it has no data","code":"not_primary"}`+"\n")
	})
}

// abandon gives up what a failed open had taken.
func (s *server) abandon() error {
	var errs []error
	if s.prepared != nil {
		errs = append(errs, s.prepared.Close())
	}
	if s.db != nil {
		errs = append(errs, s.db.Close())
	} else if s.data != nil {
		errs = append(errs, s.data.Close())
	}
	if s.api != nil {
		errs = append(errs, s.api.Close())
	}
	return errors.Join(errs...)
}

// serveHTTP begins to answer: the node's API, and the database's under /v1/data.
func (s *server) serveHTTP() {
	data, node := s.node.ProtectHandler(s.dataHandler()), s.node.Handler()
	// By hand and not by a ServeMux, which would tidy keys in paths.
	s.http = httpapi.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if path := r.URL.EscapedPath(); path == "/v1/data" || strings.HasPrefix(path, "/v1/data/") {
			data.ServeHTTP(w, r)
			return
		}
		node.ServeHTTP(w, r)
	}), s.log.Named("http"))
	listener := httpapi.Listener(s.api, s.certs)
	go func() {
		if err := s.http.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			s.failed <- fmt.Errorf("the API at %s ended: %w", s.api.Addr(), err)
		}
	}()
}

func (s *server) scheme() string {
	if s.certs != nil {
		return "https"
	}
	return "http"
}

// certificates returns what the API presents: the operator's certificate, or
// one that the node makes itself, for every name it may be called by.
func (s *server) certificates() (*httpapi.Certificates, error) {
	log := s.log.Named("api")
	if s.settings.APICert != "" {
		return httpapi.FromFiles(s.settings.APICert, s.settings.APIKey, log)
	}
	authority, err := s.authority(s.settings.Node.Secret)
	if err != nil {
		return nil, err
	}
	return httpapi.SelfMade(authority, s.hosts(), log)
}

func (s *server) authority(secret ha.Secret) (*httpapi.Authority, error) {
	authority, err := httpapi.NewAuthority(secret.Bytes())
	if err == nil {
		s.log.Named("api").Info("the API makes its own certificate: clients trust it by its authority (aiondb-ha token --api-ca)", "authority_sha256", httpapi.Fingerprint(authority.Certificate()))
	}
	return authority, err
}

// hosts returns the names and addresses that clients may know the API by.
func (s *server) hosts() []string {
	hosts := []string{"localhost", "127.0.0.1", "::1"}
	add := func(host string) {
		if host != "" && !slices.Contains(hosts, host) {
			hosts = append(hosts, host)
		}
	}
	for _, addr := range []string{s.settings.APIAddr, s.settings.Advertise(s.api.Addr()), s.settings.Node.AdvertiseAddr, s.settings.Node.Nodes[s.settings.Node.NodeID-1]} {
		host, _, err := net.SplitHostPort(addr)
		if ip := net.ParseIP(host); err == nil && (ip == nil || !ip.IsUnspecified()) {
			add(host)
		}
	}
	if name, err := os.Hostname(); err == nil {
		add(name)
	}
	if addrs, err := net.InterfaceAddrs(); err == nil && s.listensEverywhere() {
		for _, a := range addrs {
			if ip, ok := a.(*net.IPNet); ok {
				add(ip.IP.String())
			}
		}
	}
	return hosts
}

func (s *server) listensEverywhere() bool {
	host, _, err := net.SplitHostPort(s.settings.APIAddr)
	ip := net.ParseIP(host)
	return err == nil && ip != nil && ip.IsUnspecified()
}

// forget drops the secrets, which are needed no more, and returns what follow
// compares with.
func (s *server) forget() (ha.Secret, ha.APITokens) {
	secret, tokens := s.settings.Node.Secret, s.settings.Node.API
	n := &s.settings.Node
	n.Secret, n.OtherSecrets, n.Key, n.API = ha.Secret{}, nil, ha.Secret{}, ha.APITokens{}
	return secret, tokens
}

// follow takes over API tokens that have changed where they are set, and another
// secret for the certificate that the node makes itself, until ctx ends.
func (s *server) follow(ctx context.Context, secret ha.Secret, tokens ha.APITokens, load func() (settings.Settings, error)) {
	tick := time.NewTicker(reloadEvery)
	defer tick.Stop()
	said := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if s.certs != nil {
			s.certs.Look()
		}
		now, err := load()
		if err == nil && !now.Node.API.Equal(tokens) {
			if err = s.node.SetAPITokens(now.Node.API); err == nil {
				tokens = now.Node.API
				s.log.Info("the API tokens have changed", "admin", len(tokens.Admin), "read", len(tokens.Read))
			}
		}
		if err == nil && s.certs != nil && s.settings.APICert == "" && !now.Node.Secret.Equal(secret) {
			var authority *httpapi.Authority
			if authority, err = s.authority(now.Node.Secret); err == nil {
				err = s.certs.SetAuthority(authority)
			}
			if err == nil {
				secret = now.Node.Secret
			}
		}
		switch {
		case err == nil:
			said = ""
		case err.Error() != said:
			said = err.Error()
			s.log.Error("the settings are of no use as they are now: the node goes on with those it has", "error", strings.ReplaceAll(said, "\n", "; "))
		}
	}
}

// close hands over, then ends everything, the database last.
func (s *server) close() error {
	s.log.Info("closing: handing over if this node is primary")
	errs := []error{s.node.Close()} // ends the event streams too
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	if s.http.Shutdown(ctx) != nil {
		errs = append(errs, s.http.Close())
	}
	s.tasks.Wait()
	if s.db != nil {
		errs = append(errs, s.db.Close())
	}
	return errors.Join(errs...)
}

// listen takes a port, and says which setting moves it if it cannot.
func listen(ctx context.Context, what, option, addr string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err == nil {
		return l, nil
	}
	name := settings.Option{Name: option}
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("the %s address %s is taken by another program: stop it, or set %s (--%s) to another", what, addr, name.Env(), option)
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	return nil, fmt.Errorf("cannot listen at the %s address %s (%w): set %s (--%s) to an address of this machine", what, addr, err, name.Env(), option)
}
