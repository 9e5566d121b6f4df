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
)

// tokenLen is how many random bytes a new cluster secret has.
const tokenLen = 32

func toolCommands() []command {
	return []command{
		{
			name: "token", short: "make a new cluster secret",
			long:     "Text of 43 letters, digits, - and _, from 32 random bytes. All nodes need the same; whoever\nhas it is the cluster.",
			examples: []string{"aiondb-ha token -o secret", "export AIONDB_HA_AUTH_TOKEN_FILE=secret"},
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
	return func(a *app, _ *input) error {
		raw := make([]byte, tokenLen)
		rand.Read(raw) //nolint:errcheck // never fails: it ends the program instead
		token := base64.RawURLEncoding.EncodeToString(raw) + "\n"
		if *out == "" {
			_, err := a.stdout.Write([]byte(token))
			return err
		}
		return writeSecret(*out, token)
	}
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
