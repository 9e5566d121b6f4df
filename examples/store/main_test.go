package main

import (
	"strings"
	"testing"
)

func TestSumSurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	for _, step := range []struct {
		numbers []string
		want    string
	}{{[]string{"1", "2", "3"}, "6"}, {[]string{"4"}, "10"}, {nil, "10"}} {
		var out strings.Builder
		if err := run(dir, step.numbers, &out); err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimSpace(out.String()); got != step.want {
			t.Fatalf("after adding %v the sum is %s, want %s", step.numbers, got, step.want)
		}
	}
}
