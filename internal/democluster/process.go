package democluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
	"time"
)

// process is one run of a node, from its fork to its end. It is safe for
// concurrent use.
type process struct {
	cmd     *exec.Cmd
	stdin   *os.File // held open: the node ends itself when this end is gone
	started time.Time
	stopped atomic.Bool // by SIGSTOP
	asked   atomic.Bool // somebody here asked it to end
	done    chan struct{}
	err     error // why it ended; read after done
}

// startProcess forks binary with args and env, its output appended to logPath.
// It starts the process from within a call of fork.
func startProcess(fork func(start func() error) error, binary string, args, env []string, logPath string) (*process, error) {
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	in, hold, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer in.Close()

	p := &process{stdin: hold, done: make(chan struct{})}
	p.cmd = exec.Command(binary, args...)
	p.cmd.Env, p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = env, in, log, log
	p.cmd.SysProcAttr = childAttr()
	p.started = time.Now()
	if err := fork(p.cmd.Start); err != nil {
		_ = hold.Close()
		return nil, err
	}
	go func() {
		defer close(p.done)
		p.err = p.cmd.Wait()
		_ = hold.Close()
	}()
	return p, nil
}

// pid is the process ID, also after the process has ended.
func (p *process) pid() int { return p.cmd.Process.Pid }

// running reports whether the process has not ended; a paused one is running.
func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// signal sends sig; a process that has ended already is an error.
func (p *process) signal(sig syscall.Signal) error {
	switch sig {
	case syscall.SIGKILL, syscall.SIGTERM:
		p.asked.Store(true)
	case syscall.SIGSTOP:
		p.stopped.Store(true)
	case syscall.SIGCONT:
		p.stopped.Store(false)
	}
	if err := p.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("signal %d to pid %d: %w", int(sig), p.pid(), err)
	}
	return nil
}

// kill ends the process at once and waits for its end. SIGKILL also ends a
// paused process, and the kernel does not let it be refused, so the wait is short.
func (p *process) kill() error {
	err := p.signal(syscall.SIGKILL)
	<-p.done
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// terminate asks the process to end, and kills it when it has not within
// grace. It reports whether the process ended by itself.
func (p *process) terminate(grace time.Duration) (clean bool) {
	if p.stopped.Load() || p.signal(syscall.SIGTERM) != nil {
		_ = p.kill()
		return false
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.done:
		return p.err == nil
	case <-timer.C:
		_ = p.kill()
		return false
	}
}
