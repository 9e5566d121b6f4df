package main

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/aiondb/aiondb-ha/internal/httpapi"
)

// tokenLen is how many random bytes a new cluster secret has.
const tokenLen = 32

func toolCommands() []command {
	return []command{
		{
			name: "token", short: "make a new cluster secret, or what it gives to clients",
			long: "Text of 43 letters, digits, - and _, from 32 random bytes. All nodes need the same; whoever\nhas it is the cluster.\n\n" +
				"With one of the other flags it makes, from the secret that AIONDB_HA_AUTH_TOKEN or\nAIONDB_HA_AUTH_TOKEN_FILE gives, what a client of the API needs. The secret cannot be\ncomputed from it. A token of another origin, set as AIONDB_HA_API_TOKEN, is as good.",
			examples: []string{"aiondb-ha token -o secret", "export AIONDB_HA_AUTH_TOKEN_FILE=secret", "aiondb-ha token --api-read -o grafana-token", "aiondb-ha token --api-ca -o api-ca.pem"},
			setup:    setupToken,
		},
		{
			name: "version", short: "print the version", data: true,
			setup: simple(runVersion),
		},
	}
}

func setupToken(flags *flag.FlagSet) runner {
	out := flags.String("o", "", "write it to a new `FILE` that only you can read")
	admin := flags.Bool("api", false, "the API token of the cluster secret that may do everything")
	read := flags.Bool("api-read", false, "the API token of the cluster secret that may change nothing")
	ca := flags.Bool("api-ca", false, "the certificate that signs those which the nodes make for their APIs")
	return func(a *app, _ *input) error {
		if *admin || *read || *ca {
			return a.deriveToken(*admin, *read, *ca, *out)
		}
		raw := make([]byte, tokenLen)
		rand.Read(raw) // never fails: it ends the program instead
		token := base64.RawURLEncoding.EncodeToString(raw) + "\n"
		if *out == "" {
			_, err := a.stdout.Write([]byte(token))
			return err
		}
		return writeSecret(*out, token)
	}
}

// deriveToken writes one of the things that the cluster secret gives to clients.
func (a *app) deriveToken(admin, read, ca bool, out string) error {
	if admin && (read || ca) || read && ca {
		return misused("--api, --api-read and --api-ca: one at a time")
	}
	secrets := a.clusterSecrets()
	if len(secrets) == 0 {
		return fmt.Errorf("no cluster secret: set %s to its file, one that this user can read and not everybody can", authTokenEnv+fileSuffix)
	}
	var text string
	if ca {
		for _, secret := range secrets { // during a rotation clients trust all of them
			authority, err := httpapi.NewAuthority(secret.Bytes())
			if err != nil {
				return err
			}
			text += string(authority.PEM())
		}
	} else {
		token, readToken := httpapi.DeriveTokens(secrets[0].Bytes())
		if read {
			token = readToken
		}
		text = string(token.Bytes()) + "\n"
	}
	if out != "" {
		return writeSecret(out, text)
	}
	_, err := a.stdout.Write([]byte(text))
	return err
}

// writeSecret writes a file that must not exist yet: an old secret may be the
// only copy there is.
func writeSecret(path, token string) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already: remove it first if no node uses it", path)
	}
	if err != nil {
		return fmt.Errorf("the secret cannot be written: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("the secret cannot be written: %w", errors.Join(err, os.Remove(path)))
		}
	}()
	_, err = f.WriteString(token)
	return errors.Join(err, f.Sync(), f.Close())
}

// buildVersion is what this program is, for people and for the other nodes.
type buildVersion struct {
	Version  string `json:"version"`
	Revision string `json:"revision"` // of the source; "" if unknown
	Modified bool   `json:"modified"` // the source was not what the revision says
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func readVersion() buildVersion {
	v := buildVersion{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if m := info.Main.Version; v.Version == "dev" && m != "" && m != "(devel)" {
		v.Version = m // built by go install, at a version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Revision = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	return v
}

func runVersion(a *app, in *input) error {
	v := readVersion()
	if in.json {
		return a.object(v)
	}
	revision := v.Revision
	if len(revision) > 12 {
		revision = revision[:12]
	}
	if revision != "" {
		revision += ", "
	}
	_, err := fmt.Fprintf(a.stdout, "aiondb-ha %s (%s%s, %s)\n", v.Version, revision, v.Go, v.Platform)
	return err
}
