package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aiondb/aiondb-ha/internal/democluster"
)

// demo is a running `aiondb-ha demo`, or another command that runs a cluster,
// with a temporary directory of its own, by which every process it has started
// can be told.
type demo struct {
	cmd    *exec.Cmd
	temp   string
	stdout *bufio.Reader
	stderr *bytes.Buffer
}

func startDemo(t *testing.T, args ...string) *demo {
	t.Helper()
	return startIn(t, t.TempDir(), append([]string{"demo"}, args...)...)
}

func startIn(t *testing.T, temp string, args ...string) *demo {
	t.Helper()
	d := &demo{temp: temp, stderr: new(bytes.Buffer)}
	d.cmd = exec.CommandContext(within(t, runTimeout), binary, args...)
	d.cmd.Env = append(os.Environ(), "TMPDIR="+d.temp, "NO_COLOR=1")
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // as a shell would start it
	d.cmd.Stderr = d.stderr
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	d.stdout = bufio.NewReader(out)
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return d
}

// readTo reads the tour up to a line that holds word.
func (d *demo) readTo(t *testing.T, word string) {
	t.Helper()
	var said strings.Builder
	for word != "" {
		line, err := d.stdout.ReadString('\n')
		said.WriteString(line)
		if strings.Contains(line, word) {
			return
		}
		if err != nil {
			t.Fatalf("the tour ended before %q (%v):\n%s%s", word, err, said.String(), d.stderr.String())
		}
	}
}

// wait reads the rest and returns the exit status.
func (d *demo) wait(t *testing.T) (rest string, code int) {
	t.Helper()
	raw, err := io.ReadAll(d.stdout)
	if err != nil {
		t.Fatal(err)
	}
	_ = d.cmd.Wait()
	return string(raw), d.cmd.ProcessState.ExitCode()
}

// processes lists the processes whose environment names the directory.
func (d *demo) processes(t *testing.T) []string {
	t.Helper()
	environs, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil || len(environs) == 0 {
		t.Skip("no /proc to look for processes in")
	}
	var found []string
	for _, path := range environs {
		env, err := os.ReadFile(path)
		if err == nil && bytes.Contains(env, []byte("TMPDIR="+d.temp+"\x00")) {
			cmdline, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
			found = append(found, filepath.Base(filepath.Dir(path))+" "+string(bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '})))
		}
	}
	return found
}

// nothingLeft checks that no process is left, at once or, when the demo itself
// was killed, as soon as the kernel has ended them.
func (d *demo) nothingLeft(t *testing.T, atOnce bool) {
	t.Helper()
	ctx := within(t, 10*time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		left := d.processes(t)
		if len(left) == 0 {
			return
		}
		select {
		case <-tick.C:
			if !atOnce {
				continue
			}
		case <-ctx.Done():
		}
		t.Fatalf("processes left: %q", left)
	}
}

func (d *demo) noDirLeft(t *testing.T) {
	t.Helper()
	entries, err := os.ReadDir(d.temp)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Errorf("left in the temporary directory: %s", e.Name())
	}
}

// verdict decodes the JSON object that is the last line on standard output.
func verdict(t *testing.T, stdout string) democluster.Verdict {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	var v democluster.Verdict
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &v); err != nil {
		t.Fatalf("last line of standard output: %v\n%s", err, stdout)
	}
	return v
}

func checkVerdict(t *testing.T, v democluster.Verdict, stderr string) {
	t.Helper()
	if !v.OK || v.LostWrites != 0 || v.DualPrimaryAcks != 0 || v.AckedWrites == 0 {
		t.Errorf("verdict %+v\n%s", v, stderr)
	}
	kills := 0
	for _, f := range v.Failovers {
		if f.Fault == democluster.FaultKill && f.FailoverMS > 0 {
			kills++
		}
	}
	if kills == 0 {
		t.Errorf("no failover by kill: %+v", v.Failovers)
	}
	t.Logf("%+v", v)
}

// failed ends the test with what the demo and, if it kept them, its nodes said.
func (d *demo) failed(t *testing.T, stdout string, code int) {
	t.Helper()
	logs, _ := filepath.Glob(filepath.Join(verdict(t, stdout).Dir, "node-*.log"))
	for _, path := range logs {
		log, _ := os.ReadFile(path)
		t.Logf("%s (its end):\n%s", filepath.Base(path), log[max(0, len(log)-logTail):])
	}
	t.Fatalf("status %d: %s\n%s", code, d.stderr, stdout)
}

func TestDemo(t *testing.T) {
	d := startDemo(t, "--once", "--json")
	stdout, code := d.wait(t)
	if code != 0 {
		d.failed(t, stdout, code)
	}
	checkVerdict(t, verdict(t, stdout), d.stderr.String())
	d.nothingLeft(t, true)
	d.noDirLeft(t)
}

// Two clusters at the same time on one machine do not meet, and what is kept
// can be read with the tools.
func TestTwoDemosSideBySide(t *testing.T) {
	var both sync.WaitGroup
	keep := filepath.Join(t.TempDir(), "kept")
	demos := []*demo{startDemo(t, "--once", "--json", "--keep", keep), startDemo(t, "--once", "--json", "--nodes", "3")}
	outs, codes := make([]string, len(demos)), make([]int, len(demos))
	for i, d := range demos {
		both.Go(func() {
			raw, _ := io.ReadAll(d.stdout)
			_ = d.cmd.Wait()
			outs[i], codes[i] = string(raw), d.cmd.ProcessState.ExitCode()
		})
	}
	both.Wait()
	for i, d := range demos {
		if codes[i] != 0 {
			d.failed(t, outs[i], codes[i])
		}
		checkVerdict(t, verdict(t, outs[i]), d.stderr.String())
		d.nothingLeft(t, true)
		d.noDirLeft(t)
	}
	for _, verb := range []string{"verify", "cat"} {
		if r := run(t, os.Environ(), "log", verb, filepath.Join(keep, "node-1", "ha", "node-1")); r.code != 0 || r.stdout == "" {
			t.Errorf("log %s of what was kept: status %d\n%s%s", verb, r.code, r.stdout, r.stderr)
		}
	}
}

// Ctrl-C at any moment leaves no process and no directory, whether the signal
// reaches the demo alone or, as from a terminal, its process group.
func TestDemoInterrupted(t *testing.T) {
	for i, word := range []string{"", "dashboard", "data and logs", "elect", "write", "kill -9", "promoted", "rejoin"} {
		t.Run("at "+word, func(t *testing.T) {
			d := startDemo(t, "--once")
			d.readTo(t, word)
			pid := d.cmd.Process.Pid
			if i%2 == 1 {
				pid = -pid
			}
			if err := syscall.Kill(pid, syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
			rest, code := d.wait(t)
			if word == "" && code == -1 {
				t.Log("interrupted before it could listen for it")
			} else if code != 1 || d.stderr.String() != "aiondb-ha: demo: interrupted\n" {
				t.Errorf("status %d, standard error %q\n%s", code, d.stderr, rest)
			}
			d.nothingLeft(t, true)
			d.noDirLeft(t)
		})
	}
}

// The demo's own death by SIGKILL leaves no process either.
func TestDemoKilled(t *testing.T) {
	for _, word := range []string{"dashboard", "write", "kill -9"} {
		t.Run("at "+word, func(t *testing.T) {
			d := startDemo(t, "--once")
			d.readTo(t, word)
			if err := d.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			d.wait(t)
			d.nothingLeft(t, false)
		})
	}
}

func TestDemoUsage(t *testing.T) {
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "mine"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--nodes", "0"}, 2, "0 nodes: want 3 to 9"},
		{[]string{"--nodes", "2"}, 2, "a failover takes at least 3"},
		{[]string{"--nodes", "10"}, 2, "10 nodes"},
		{[]string{"--nonsense"}, 2, "nonsense"},
		{[]string{"more"}, 2, "more"},
		{[]string{"--once", "--keep", full}, 1, "directory is not empty"},
		{[]string{"--help"}, 0, ""},
	} {
		r := run(t, os.Environ(), append([]string{"demo"}, tt.args...)...)
		if r.code != tt.code || !strings.Contains(r.stderr, tt.says) || (tt.code != 0) != strings.HasPrefix(r.stderr, "aiondb-ha: demo: ") {
			t.Errorf("demo %v: status %d, want %d; standard error %q", tt.args, r.code, tt.code, r.stderr)
		}
	}
	if entries, _ := os.ReadDir(full); len(entries) != 1 {
		t.Errorf("the directory of somebody else was changed: %v", entries)
	}
}
