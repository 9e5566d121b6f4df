package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/aiondb/aiondb-ha/internal/pki"
	"github.com/aiondb/aiondb-ha/internal/transport"
	"github.com/aiondb/aiondb-ha/protocol"
)

const (
	defaultCADays   = 3650
	defaultNodeDays = 365
	maxCertDays     = 36500

	caName = "ca" // ca.pem, ca-key.pem
)

func certCommands() []command {
	return []command{
		{
			name: "cert ca", args: "DIR", short: "make a CA for the certificates of one cluster's nodes", min: 1, max: 1,
			long: "Writes ca.pem, which every node needs (AIONDB_HA_TLS_CA), and ca-key.pem, which no node needs:\n" +
				"keep it apart.",
			examples: []string{"aiondb-ha cert ca pki"},
			setup:    setupCertCA,
		},
		{
			name: "cert node", args: "ID DIR", short: "make the certificate of a node, signed by the CA in DIR", min: 2, max: 2,
			long: "Writes node-ID.pem and node-ID-key.pem (AIONDB_HA_TLS_CERT, AIONDB_HA_TLS_KEY). A certificate\n" +
				"names its node and is good for no other. A node takes new files while it runs.",
			examples: []string{"aiondb-ha cert node 1 pki", "aiondb-ha cert node 1 pki --replace"},
			setup:    setupCertNode,
		},
	}
}

func daysFlag(flags *flag.FlagSet, otherwise int) *int {
	return flags.Int("days", otherwise, "how many `DAYS` it is good for")
}

func checkDays(days int) (time.Duration, error) {
	if days < 1 || days > maxCertDays {
		return 0, misused("--days %d: want 1 to %d", days, maxCertDays)
	}
	return time.Duration(days) * 24 * time.Hour, nil
}

func setupCertCA(flags *flag.FlagSet) runner {
	days := daysFlag(flags, defaultCADays)
	return func(a *app, in *input) error {
		valid, err := checkDays(*days)
		if err != nil {
			return err
		}
		// A name of its own, so that two CAs can be told apart.
		var mark [4]byte
		_, _ = rand.Read(mark[:]) // never fails: it ends the program instead
		pair, err := pki.NewCA("aiondb-ha CA "+hex.EncodeToString(mark[:]), valid)
		if err != nil {
			return err
		}
		dir := in.args[0]
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		return a.writePair(dir, caName, pair, false)
	}
}

func setupCertNode(flags *flag.FlagSet) runner {
	days := daysFlag(flags, defaultNodeDays)
	replace := flags.Bool("replace", false, "put it in the place of the node's earlier one")
	return func(a *app, in *input) error {
		valid, err := checkDays(*days)
		if err != nil {
			return err
		}
		id, err := protocol.ParseNodeID(in.args[0])
		if err != nil {
			return misused("%v", err)
		}
		dir := in.args[1]
		var ca pki.Pair
		if ca.Cert, err = os.ReadFile(filepath.Join(dir, caName+".pem")); err != nil {
			return fmt.Errorf("there is no CA in %s (%w): make one with `aiondb-ha cert ca`", dir, err)
		}
		if ca.Key, err = os.ReadFile(filepath.Join(dir, caName+"-key.pem")); err != nil {
			return fmt.Errorf("the CA's key is not in %s (%w)", dir, err)
		}
		pair, err := pki.NewNode(ca, id, transport.NodeURI(id), valid)
		if err != nil {
			return err
		}
		return a.writePair(dir, "node-"+id.String(), pair, *replace)
	}
}

// writePair writes a certificate and its key and says where they are.
func (a *app) writePair(dir, name string, pair pki.Pair, replace bool) error {
	cert, key := filepath.Join(dir, name+".pem"), filepath.Join(dir, name+"-key.pem")
	if !replace {
		for _, path := range []string{cert, key} {
			if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("%s is there already: choose another directory, or give --replace for a node", path)
			}
		}
	}
	if err := errors.Join(writeFile(key, pair.Key, 0o600), writeFile(cert, pair.Cert, 0o644)); err != nil {
		return err
	}
	_, err := fmt.Fprintf(a.stdout, "%s\n%s\n", cert, key)
	return err
}

// writeFile puts a whole file in the place of what is there.
func writeFile(path string, content []byte, mode fs.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.tmp") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(content)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
