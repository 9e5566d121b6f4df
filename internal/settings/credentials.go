package settings

import (
	"errors"
	"io/fs"
	"strings"

	ha "github.com/aiondb/aiondb-ha"
	"github.com/aiondb/aiondb-ha/protocol"
)

// credentials reads secrets and certificates. The secret in use is read first,
// the others after it: who rotates writes them in the other order, so that
// whatever is read in between accepts what the others send.
func (l *loader) credentials() ha.Credentials {
	c := ha.Credentials{Secret: l.secret("auth-token", true)}
	for _, name := range []string{"auth-token-next", "auth-token-previous"} {
		if other := l.secret(name, false); other.Len() > 0 && !other.Equal(c.Secret) {
			c.OtherSecrets = append(c.OtherSecrets, other)
		}
	}
	var missing []string
	read := func(name string, secret bool) []byte {
		path, ok := l.get(name)
		if !ok {
			missing = append(missing, Option{Name: name}.Env())
			return nil
		}
		raw, err := readSmall(path.text)
		if err == nil && secret {
			err = private(path.text)
		}
		switch {
		case err != nil:
			l.faults.add("%s: %v", path.from, err)
		case len(strings.TrimSpace(string(raw))) == 0:
			l.faults.add("%s: %s is empty", path.from, path.text)
		}
		return raw
	}
	c.CA, c.Certificate = read("tls-ca", false), read("tls-cert", false)
	c.Key = protocol.NewSecret(read("tls-key", true))
	if n := len(missing); n > 0 && n < 3 {
		l.faults.add("%s is not set: give CA, certificate and key, or none of them", strings.Join(missing, ", "))
	}
	return c
}

// besides is what the default file of another secret adds to the name of the
// secret's.
var besides = map[string]string{"auth-token-next": ".next", "auth-token-previous": ".previous"}

// secret reads a secret of at least protocol.MinSecretLen bytes. The file of
// one that is not needed may be absent, or empty: so rotating does not change
// settings.
func (l *loader) secret(name string, needed bool) protocol.Secret {
	text, ok := l.secretText(name)
	if !ok {
		if needed && !l.has(name) {
			l.faults.add("%s is not set, nor is %s: make a secret with `aiondb-ha token -o FILE` and give the same to all nodes",
				Option{Name: name + "-file"}.Env(), Option{Name: name}.Env())
		}
		return protocol.Secret{}
	}
	if len(text.text) < protocol.MinSecretLen {
		l.faults.add("%s: the secret has %d bytes, it needs %d: make one with `aiondb-ha token`", text.from, len(text.text), protocol.MinSecretLen)
		return protocol.Secret{}
	}
	return protocol.NewSecret(text.text)
}

// has reports whether a secret is set, in either form.
func (l *loader) has(name string) bool {
	_, text := l.get(name)
	_, file := l.get(name + "-file")
	return text || file
}

// secretText reads a secret from its text or its file, whichever stands in the
// first place. Blanks around it do not count, as in AionDB. A file that is not
// there is a fault, unless the secret is one of besides.
func (l *loader) secretText(name string) (value, bool) {
	text, haveText := l.get(name)
	file, haveFile := l.get(name + "-file")
	suffix, optional := besides[name]
	if used, ok := l.get("auth-token-file"); ok && optional && !haveText && !haveFile {
		path := used.text + suffix
		file, haveFile = value{text: path, from: path, layer: used.layer}, true
	}
	switch {
	case haveText && haveFile && text.layer == file.layer:
		l.faults.add("%s and %s are both set: unset one", text.from, file.from)
		return value{}, false
	case haveFile && (!haveText || file.layer < text.layer):
		raw, err := readSecret(file.text)
		if optional && (errors.Is(err, fs.ErrNotExist) || err == nil && len(strings.TrimSpace(string(raw))) == 0) {
			return value{}, false
		}
		if err != nil {
			l.faults.add("%s: %v", file.from, err)
			return value{}, false
		}
		return value{text: strings.TrimSpace(string(raw)), from: file.from}, true
	}
	return text, haveText
}
