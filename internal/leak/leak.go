// Package leak finds a secret in what a program has said. It is for tests.
package leak

import (
	"bytes"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
)

// window is how many bytes of a secret in a row are a leak: a secret that was
// cut short before it was shown is one too.
const window = 10

// Find looks for secret in out, whole or a stretch of it, as it is and in every
// spelling that a program gives bytes without meaning to: hexadecimal, base64
// and base32 at any alignment, numbers. It returns what was found, "" for
// nothing. The secret must have at least window bytes.
func Find(out, secret []byte) string {
	if len(secret) < window {
		return fmt.Sprintf("the test is at fault: a secret of %d bytes", len(secret))
	}
	for name, spelling := range spellings(secret) {
		if i := bytes.Index(out, []byte(spelling)); i >= 0 {
			return fmt.Sprintf("%s: …%s…", name, around(out, i, len(spelling)))
		}
	}
	lower := bytes.ToLower(out)
	for i := 0; i+window <= len(secret); i++ {
		part := secret[i : i+window]
		if at := bytes.Index(out, part); at >= 0 {
			return fmt.Sprintf("bytes %d to %d: …%s…", i, i+window, around(out, at, window))
		}
		if at := bytes.Index(lower, []byte(hex.EncodeToString(part))); at >= 0 {
			return fmt.Sprintf("bytes %d to %d in hexadecimal: …%s…", i, i+window, around(out, at, 2*window))
		}
	}
	return ""
}

func around(out []byte, at, n int) string {
	return strings.ToValidUTF8(string(out[max(0, at-40):min(len(out), at+n+10)]), "?")
}

func spellings(secret []byte) map[string]string {
	join := func(format, sep string) string {
		parts := make([]string, window)
		for i, b := range secret[:window] {
			parts[i] = fmt.Sprintf(format, b)
		}
		return strings.Join(parts, sep)
	}
	all := map[string]string{
		"as numbers":              join("%d", " "),
		"as numbers in a list":    join("%d", ","),
		"as numbers in a list, ":  join("%d", ", "),
		"as bytes of Go":          join("0x%x", ", "),
		"as bytes apart":          join("%02x", " "),
		"as bytes apart, capital": join("%02X", " "),
		"with colons":             join("%02x", ":"),
	}
	// What stands before the secret in the same encoded text shifts it. The
	// characters at the ends depend on the neighbours and are left out.
	for shift := range 3 {
		plain := base64.RawStdEncoding.EncodeToString(append(make([]byte, shift), secret...))
		url := base64.RawURLEncoding.EncodeToString(append(make([]byte, shift), secret...))
		from, to := (shift*4+2)/3, len(plain)-1
		all[fmt.Sprintf("in base64, shifted by %d", shift)] = plain[from:to]
		all[fmt.Sprintf("in base64 of URLs, shifted by %d", shift)] = url[from:to]
	}
	for shift := range 5 {
		text := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(append(make([]byte, shift), secret...))
		all[fmt.Sprintf("in base32, shifted by %d", shift)] = text[(shift*8+4)/5 : len(text)-1]
	}
	return all
}
