package jsonlstore

import (
	"bytes"
	"encoding/base64"
	"math/rand/v2"
	"testing"
)

// TestBase64AgainstTheLibrary: what is encoded is the same, and what is decoded
// is what the library takes, less the newlines that it passes over.
func TestBase64AgainstTheLibrary(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 1))
	interesting := []byte("AZaz09+/=-_ \n\r\"\\\x00\x7f\x80\xff")
	taken, refused := 0, 0
	for i := range 40_000 {
		data := make([]byte, i%100)
		for j := range data {
			data[j] = byte(rng.Uint32())
		}
		text := appendEncoded([]byte("before"), data)
		if want := "before" + base64.StdEncoding.EncodeToString(data); string(text) != want {
			t.Fatalf("%x is %q, want %q", data, text, want)
		}
		text = text[len("before"):]
		if got, ok := decodeBase64(text); !ok || !bytes.Equal(got, data) || got == nil {
			t.Fatalf("%q is %x, %v, want %x", text, got, ok, data)
		}
		for range 1 + rng.IntN(2) {
			at, with := rng.IntN(len(text)+1), interesting[rng.IntN(len(interesting))]
			switch rng.IntN(3) {
			case 0:
				if at < len(text) {
					text[at] = with
				}
			case 1:
				text = bytes.Join([][]byte{text[:at], text[at:]}, []byte{with})
			case 2:
				text = append(text[:at], text[min(at+1, len(text)):]...)
			}
		}
		want, err := strictBase64.DecodeString(string(text))
		wantOK := err == nil && !bytes.ContainsAny(text, "\n\r")
		got, ok := decodeBase64(text)
		if ok != wantOK || ok && !bytes.Equal(got, want) {
			t.Fatalf("%q is %x, %v, want %x, %v", text, got, ok, want, err)
		}
		if ok {
			taken++
		} else {
			refused++
		}
	}
	if taken < 1000 || refused < 1000 {
		t.Errorf("%d taken, %d refused", taken, refused)
	}
}
