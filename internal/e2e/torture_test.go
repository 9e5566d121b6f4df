package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/aiondb/aiondb-ha/internal/torture"
)

// tortureVerdict decodes the last line on standard output.
func tortureVerdict(t *testing.T, stdout string) torture.Verdict {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	var v torture.Verdict
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &v); err != nil {
		t.Fatalf("last line of standard output: %v\n%s", err, stdout)
	}
	return v
}

// A short torture with every fault this machine allows. What it says when it
// fails is enough to repeat the script; logs and records are kept then.
func TestTorture(t *testing.T) {
	d := startIn(t, t.TempDir(), "torture", "--minutes", "0.4", "--json")
	stdout, code := d.wait(t)
	v := tortureVerdict(t, stdout)
	t.Logf("seed %d, network %s, disk %s, faults %v, left out %v", v.Seed, v.Network, v.Disk, v.Faults, v.LeftOut)
	if code != 0 || !v.OK {
		t.Fatalf("status %d: %s\nthe script, seed %d:\n%s\n%s", code, v.Reason, v.Seed, strings.Join(v.Script, "\n"), d.stderr)
	}
	if v.LostWrites != 0 || v.DualPrimaryAcks != 0 || !v.Linearizable || v.AckedWrites == 0 || v.RegisterOps == 0 || len(v.Faults) == 0 {
		t.Errorf("all is well, but the verdict says: %s", stdout)
	}
	d.nothingLeft(t, true)
	d.noDirLeft(t)
}

// Ctrl-C ends the faults; there is a verdict about the time until then, a
// picture where it was wanted, and nothing is left.
func TestTortureInterrupted(t *testing.T) {
	report := filepath.Join(t.TempDir(), "report.html")
	d := startIn(t, t.TempDir(), "torture", "--minutes", "30", "--report", report, "--faults", "kill,pause")
	d.readTo(t, "whole after") // the first step is done
	if err := syscall.Kill(-d.cmd.Process.Pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	rest, code := d.wait(t)
	if code != 0 || !strings.Contains(rest, "acknowledged by two primaries at once") || d.stderr.Len() > 0 {
		t.Errorf("status %d, standard error %q\n%s", code, d.stderr, rest)
	}
	if page, err := os.ReadFile(report); err != nil || !strings.Contains(string(page), "It kept its promises") {
		t.Errorf("the picture: %v\n%.200s", err, page)
	}
	d.nothingLeft(t, true)
	d.noDirLeft(t)
}

// Its death by SIGKILL leaves no process, and what it leaves on the disk the
// next run takes away.
func TestTortureKilled(t *testing.T) {
	temp := t.TempDir()
	d := startIn(t, temp, "torture", "--minutes", "30", "--busy", "1", "--faults", "pause")
	d.readTo(t, "whole after")
	if err := d.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	d.wait(t)
	d.nothingLeft(t, false)
	if entries, err := os.ReadDir(temp); err != nil || len(entries) != 1 {
		t.Fatalf("expected one directory to be left: %v, %v", entries, err)
	}
	next := startIn(t, temp, "torture", "--steps", "1", "--faults", "calm")
	rest, code := next.wait(t)
	if code != 0 {
		t.Errorf("status %d: %s\n%s", code, next.stderr, rest)
	}
	next.nothingLeft(t, true)
	next.noDirLeft(t)
}

func TestTortureUsage(t *testing.T) {
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "mine"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--nodes", "2"}, 2, "2 nodes: want 3 to"},
		{[]string{"--nodes", "0"}, 2, "0 nodes"},
		{[]string{"--minutes", "0"}, 2, "--minutes 0"},
		{[]string{"--minutes", "NaN"}, 2, "--minutes NaN"},
		{[]string{"--faults", "kill,earthquake"}, 2, `unknown fault "earthquake"`},
		{[]string{"--target", "leader"}, 2, `target "leader"`},
		{[]string{"--busy", "-1"}, 2, "busy"},
		{[]string{"--nonsense"}, 2, "nonsense"},
		{[]string{"more"}, 2, "more"},
		{[]string{"-o", "yaml"}, 2, "want json"},
		{[]string{"--keep", full}, 1, "directory is not empty"},
		{[]string{"--help"}, 0, ""},
	} {
		r := run(t, os.Environ(), append([]string{"torture"}, tt.args...)...)
		if r.code != tt.code || !strings.Contains(r.stderr, tt.says) || (tt.code != 0) != strings.HasPrefix(r.stderr, "aiondb-ha: torture: ") {
			t.Errorf("torture %v: status %d, want %d; standard error %q", tt.args, r.code, tt.code, r.stderr)
		}
	}
	if entries, _ := os.ReadDir(full); len(entries) != 1 {
		t.Errorf("the directory of somebody else was changed: %v", entries)
	}
}
