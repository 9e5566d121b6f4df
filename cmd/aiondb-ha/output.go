package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// freshness is what every read of replicated state says of itself.
type freshness struct {
	Stale bool   `json:"stale"`
	AgeMS int64  `json:"age_ms"`
	Index uint64 `json:"index"`
}

// document prints an answer of the API as it came, indented.
func (a *app) document(raw []byte) error {
	var buf bytes.Buffer
	if err := json.Indent(&buf, bytes.TrimSpace(raw), "", "  "); err != nil {
		return fmt.Errorf("the answer is no JSON: %w", err)
	}
	buf.WriteByte('\n')
	_, err := a.stdout.Write(buf.Bytes())
	return err
}

// object prints a document of our own.
func (a *app) object(document any) error {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(document); err != nil {
		return err
	}
	return a.document(buf.Bytes())
}

// noteStale tells a person, beside the data, that it may be old.
func (a *app) noteStale(f freshness) {
	if !f.Stale {
		return
	}
	age := "of unknown age: this node has not heard of a leader yet"
	if f.AgeMS >= 0 {
		age = millis(f.AgeMS) + " old"
	}
	fmt.Fprintf(a.stderr, "stale answer, %s (index %d)\n", age, f.Index)
}

// millis writes a number of milliseconds as people say it.
func millis(ms int64) string {
	switch d := time.Duration(ms) * time.Millisecond; {
	case ms < 1000:
		return strconv.FormatInt(ms, 10) + "ms"
	case d < time.Minute:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + "s"
	case d < 48*time.Hour:
		return d.Round(time.Second).String()
	default:
		return strconv.Itoa(int(d.Hours()/24)) + "d"
	}
}

// micros writes a number of microseconds.
func micros(us int64) string {
	if us < 1000 {
		return strconv.FormatInt(us, 10) + "µs"
	}
	return strconv.FormatFloat(float64(us)/1000, 'f', 1, 64) + "ms"
}

func count[N ~int | ~uint32 | ~uint64](n N) string { return strconv.FormatUint(uint64(n), 10) }
