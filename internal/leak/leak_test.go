package leak

import (
	"encoding/base32"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"testing"
)

func TestFind(t *testing.T) {
	const secret = "correct-horse-battery-staple-0123"
	raw := []byte(secret)
	asJSON, err := json.Marshal(raw)
	if err != nil {
		t.Fatal(err)
	}
	basic := func(user string) string { return base64.StdEncoding.EncodeToString([]byte(user + ":" + secret + "@x")) }
	for _, out := range []string{
		secret, "token=" + secret + "&x=1", secret[:14], secret[8:20], string(asJSON), basic("a"), basic("ab"), basic("abc"),
		base32.StdEncoding.EncodeToString([]byte("ab" + secret + "c")), base64.URLEncoding.EncodeToString(append([]byte{1}, raw...)),
		fmt.Sprintf("%x", raw), fmt.Sprintf("%X", raw), fmt.Sprintf("% x", raw), fmt.Sprintf("% X", raw), fmt.Sprintf("%x", raw[3:20]),
		fmt.Sprint(raw), fmt.Sprintf("%#v", raw), fmt.Sprintf("%+v", struct{ S []byte }{raw}), fmt.Sprintf("%q", raw),
	} {
		if Find([]byte("before "+out+" after"), raw) == "" {
			t.Errorf("not found in %s", out)
		}
	}
	for _, out := range []string{"", "correct", "correct horse battery staple", "(secret)", "99 111 114"} {
		if found := Find([]byte(out), raw); found != "" {
			t.Errorf("found in %q: %s", out, found)
		}
	}
	if Find(nil, []byte("short")) == "" {
		t.Error("a short secret cannot be looked for")
	}
}
