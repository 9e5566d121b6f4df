package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/aiondb/aiondb-ha/internal/httpapi"
	"github.com/aiondb/aiondb-ha/internal/settings"
	"github.com/aiondb/aiondb-ha/internal/term"
	"github.com/aiondb/aiondb-ha/protocol"
)

// What a client shares with a node's settings, so that on a node's machine, with
// the node's environment, nothing else has to be said.
const (
	apiTokenEnv     = "AIONDB_HA_API_TOKEN"      //nolint:gosec // G101: the name of a variable
	apiReadTokenEnv = "AIONDB_HA_API_READ_TOKEN" //nolint:gosec // G101: the name of a variable
	apiRequireEnv   = "AIONDB_HA_API_REQUIRE_TOKEN"
	apiTLSEnv       = "AIONDB_HA_API_TLS"
	apiCertEnv      = "AIONDB_HA_API_TLS_CERT"
	apiCAEnv        = "AIONDB_HA_API_CA"
	authTokenEnv    = "AIONDB_HA_AUTH_TOKEN" //nolint:gosec // G101: the name of a variable
	fileSuffix      = "_FILE"
)

// access is what the command line says of tokens and certificates.
type access struct {
	token, tokenFile, ca string
}

// bearer finds the token to send to base, if any: that of the command line, of
// the environment, or the one that the cluster secret gives.
func (a *app) bearer(in *input, base *url.URL) (protocol.Secret, error) {
	private := base.Scheme == "https" || loopbackHost(base.Hostname())
	given, from, err := a.givenToken(in)
	switch {
	case err != nil:
		return protocol.Secret{}, err
	case given.Len() > 0 && !private:
		return protocol.Secret{}, fmt.Errorf("%s would cross the network in the clear to %s: use https://", from, base)
	case given.Len() > 0:
		return given, nil
	case base.Scheme != "https" && a.getenv(apiRequireEnv) == "":
		// Without TLS another program could stand in for the node: it gets no
		// token that nobody has asked for.
		return protocol.Secret{}, nil
	case !private:
		return protocol.Secret{}, nil
	}
	for _, secret := range a.clusterSecrets() {
		admin, _ := httpapi.DeriveTokens(secret.Bytes())
		return admin, nil
	}
	return protocol.Secret{}, nil
}

// givenToken returns the API token that somebody has set, and where.
func (a *app) givenToken(in *input) (token protocol.Secret, from string, err error) {
	switch {
	case in.access.token != "" && in.access.tokenFile != "":
		return token, "", misused("--api-token and --api-token-file are both there: one is enough")
	case in.access.token != "":
		fmt.Fprintln(a.stderr, "aiondb-ha: --api-token: every user of this machine can read a command line: use --api-token-file FILE or "+apiTokenEnv)
		return protocol.NewSecret(in.access.token), "--api-token", nil
	case in.access.tokenFile != "":
		token, err = settings.ReadToken(in.access.tokenFile)
		if err != nil {
			err = fmt.Errorf("--api-token-file: %w", err)
		}
		return token, "--api-token-file", err
	}
	for _, name := range []string{apiTokenEnv, apiReadTokenEnv} {
		if words := strings.Fields(a.getenv(name)); len(words) > 0 {
			return protocol.NewSecret(words[0]), name, nil
		}
		if path := a.getenv(name + fileSuffix); path != "" {
			token, err = settings.ReadToken(path)
			if err != nil {
				err = fmt.Errorf("%s: %w", name+fileSuffix, err)
			}
			return token, name + fileSuffix, err
		}
	}
	return token, "", nil
}

// clusterSecrets returns the cluster secrets of the environment that this user
// may read: the one in use, and those of a rotation.
func (a *app) clusterSecrets() (list []protocol.Secret) {
	add := func(s protocol.Secret) {
		if s.Len() >= protocol.MinSecretLen && !slices.ContainsFunc(list, s.Equal) {
			list = append(list, s)
		}
	}
	main := a.getenv(authTokenEnv + fileSuffix)
	for _, which := range []string{"", "NEXT", "PREVIOUS"} {
		name, path := authTokenEnv, ""
		if which != "" {
			name += "_" + which
			if main != "" {
				path = main + "." + strings.ToLower(which)
			}
		}
		if set := a.getenv(name + fileSuffix); set != "" {
			path = set
		}
		if text := strings.TrimSpace(a.getenv(name)); text != "" {
			add(protocol.NewSecret(text))
		} else if path != "" {
			if secret, err := settings.ReadSecret(path); err == nil {
				add(secret)
			}
		}
	}
	return list
}

// trust returns how the certificate of an API is checked: by the file that was
// named, or else by this machine's authorities and those of the cluster secret.
func (a *app) trust(in *input) (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS13}
	path, from := in.access.ca, "--api-ca"
	if path == "" {
		path, from = a.getenv(apiCAEnv), apiCAEnv
	}
	if path != "" {
		raw, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", from, err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(raw) {
			return nil, fmt.Errorf("%s: there is no certificate in %s", from, path)
		}
		return conf, nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	for _, secret := range a.clusterSecrets() {
		authority, err := httpapi.NewAuthority(secret.Bytes())
		if err != nil {
			return nil, err
		}
		pool.AddCert(authority.Certificate())
	}
	conf.RootCAs = pool
	return conf, nil
}

// untrusted explains why a certificate was not accepted; nil if that is not it.
func untrusted(base *url.URL, err error) error {
	var unverified *tls.CertificateVerificationError
	if !errors.As(err, &unverified) || len(unverified.UnverifiedCertificates) == 0 {
		return nil
	}
	chain := unverified.UnverifiedCertificates
	var name x509.HostnameError
	if errors.As(err, &name) {
		return fmt.Errorf("the certificate of %s is not for %s but for %s: name the node by one of those",
			base, term.Safe(name.Host), term.Safe(strings.Join(namesOf(chain[0]), ", ")))
	}
	var unknown x509.UnknownAuthorityError
	if errors.As(err, &unknown) {
		return fmt.Errorf("the certificate of %s is signed by nobody trusted here (its authority's SHA-256 is %s): give --api-ca FILE (aiondb-ha token --api-ca -o FILE makes it, on a node)",
			base, httpapi.Fingerprint(chain[len(chain)-1]))
	}
	return fmt.Errorf("the certificate of %s is of no use: %w", base, unverified.Err)
}

func namesOf(cert *x509.Certificate) []string {
	names := append([]string{}, cert.DNSNames...)
	for _, ip := range cert.IPAddresses {
		names = append(names, ip.String())
	}
	return names
}

// loopbackHost reports whether host can only be this machine.
func loopbackHost(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

// schemeFor chooses how an API is spoken to whose address names no scheme: as a
// node that listens there speaks, unless the environment says otherwise.
func (a *app) schemeFor(address string) string {
	switch strings.ToLower(a.getenv(apiTLSEnv)) {
	case "true", "1", "yes", "on":
		return "https"
	case "false", "0", "no", "off":
		return "http"
	}
	u, err := url.Parse("http://" + address)
	if err != nil || a.getenv(apiCertEnv) == "" && loopbackHost(u.Hostname()) {
		return "http"
	}
	return "https"
}
