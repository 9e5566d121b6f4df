package ha

import (
	"encoding/json"
	"testing"

	"github.com/aiondb/aiondb-ha/fsm"
)

// FuzzForwardedResult: what a leader can answer a forwarded command with.
func FuzzForwardedResult(f *testing.F) {
	for _, r := range []fsm.Result{{}, {Index: 7, Changed: true}} {
		raw, err := json.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Add([]byte(`{"refused":1}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var r fsm.Result
		if json.Unmarshal(raw, &r) != nil {
			return
		}
		if err := r.Err(); err != nil {
			_ = err.Error()
		}
		if _, err := json.Marshal(r); err != nil {
			t.Fatalf("%+v: %v", r, err)
		}
	})
}
