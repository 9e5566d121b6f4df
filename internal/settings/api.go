package settings

import (
	"bytes"
	"errors"
	"strings"

	"github.com/aiondb/aiondb-ha/protocol"
)

// api reads who may use the API and how it is encrypted. An API that other
// machines reach without a token, or in the clear, is refused.
func (l *loader) api(out *Settings) {
	tokens := &out.Node.API
	var from string
	tokens.Admin, from = l.tokens("api-token")
	tokens.Read, _ = l.tokens("api-read-token")
	tokens.Required = l.boolean("api-require-token", false)
	if err := tokens.Validate(out.Node.Secrets()...); err != nil {
		for _, fault := range flatten(err) {
			l.faults.add("API tokens (%s, %s): %v", from, Option{Name: "api-read-token"}.Env(), fault)
		}
	}

	var keyFrom, certFrom string
	out.APICert, certFrom = l.setting("api-tls-cert")
	out.APIKey, keyFrom = l.setting("api-tls-key")
	switch {
	case out.APICert != "" && out.APIKey == "":
		l.faults.add("%s is not set, but %s is: name the private key of that certificate", keyFrom, certFrom)
	case out.APICert == "" && out.APIKey != "":
		l.faults.add("%s is not set, but %s is: name the certificate of that key", certFrom, keyFrom)
	case out.APIKey != "":
		if err := private(out.APIKey); err != nil {
			l.faults.add("%s: the private key cannot be used: %v", keyFrom, err)
		}
	}

	public := out.APIAddr != "" && !isLoopback(out.APIAddr)
	text, tlsFrom := l.setting("api-tls")
	out.APITLS = l.boolean("api-tls", public || out.APICert != "")
	_, addrFrom := l.setting("api-addr")
	if text != "" && !out.APITLS {
		if public {
			l.faults.add("%s: %s is reached from other machines, and tokens would cross the network in the clear: turn TLS on, or listen on 127.0.0.1", tlsFrom, out.APIAddr)
		}
		if out.APICert != "" {
			l.faults.add("%s: TLS is off, but %s names a certificate: unset one", tlsFrom, certFrom)
		}
	}
	asked := tokens.Required || l.has("api-token") || l.has("api-read-token")
	off, requireFrom := l.setting("api-require-token")
	switch {
	case !public:
		if off != "" && !tokens.Required && asked {
			l.faults.add("%s: no token is to be asked for, but one is set: unset one", requireFrom)
		}
	case !asked:
		l.faults.add("%s: %s is reached from other machines, and nobody would be asked for a token: set %s (aiondb-ha token -o FILE makes one), or %s=true to let in those who hold tokens derived from the cluster secret (aiondb-ha token --api), or listen on 127.0.0.1",
			addrFrom, out.APIAddr, Option{Name: "api-token-file"}.Env(), Option{Name: "api-require-token"}.Env())
	case off != "" && !tokens.Required:
		l.faults.add("%s: %s is reached from other machines, so a token is always asked for: unset it, or listen on 127.0.0.1", requireFrom, out.APIAddr)
	}
}

// tokens reads the tokens of one scope: one or more, with blanks between.
func (l *loader) tokens(name string) (list []protocol.Secret, from string) {
	from = Option{Name: name}.Env()
	text, ok := l.secretText(name)
	if !ok {
		return nil, from
	}
	for word := range strings.FieldsSeq(text.text) {
		list = append(list, protocol.NewSecret(word))
	}
	if len(list) == 0 {
		l.faults.add("%s: there is no token in it: make one with `aiondb-ha token -o FILE`", text.from)
	}
	return list, text.from
}

// flatten returns the errors that errors.Join has joined.
func flatten(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		return joined.Unwrap()
	}
	return []error{err}
}

// ReadSecret reads a file that holds one secret and that not every user of this
// machine can use, as Load does. Blanks around the secret do not count.
func ReadSecret(path string) (protocol.Secret, error) {
	raw, err := readSecret(path)
	if err != nil {
		return protocol.Secret{}, err
	}
	if raw = bytes.TrimSpace(raw); len(raw) == 0 {
		return protocol.Secret{}, errors.New(path + " is empty")
	}
	return protocol.NewSecret(raw), nil
}

// ReadToken reads what a client needs of a file of API tokens: the first.
func ReadToken(path string) (protocol.Secret, error) {
	all, err := ReadSecret(path)
	if err != nil {
		return protocol.Secret{}, err
	}
	return protocol.NewSecret(bytes.Fields(all.Bytes())[0]), nil
}
