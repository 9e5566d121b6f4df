package torture

import (
	"errors"
	"fmt"
	"os/exec"
	"runtime"
)

// burn starts n processes that do nothing but keep a processor busy, and
// returns what ends them. They end with this process in any case.
func burn(n int) (rest func(), err error) {
	var ends []func()
	rest = func() {
		for _, end := range ends {
			end()
		}
		ends = nil
	}
	for range n {
		started, done, ended := make(chan error), make(chan struct{}), make(chan struct{})
		go func() {
			defer close(ended)
			runtime.LockOSThread() // never unlocked: the process follows the thread that started it
			cmd := exec.Command("sh", "-c", "while :; do :; done")
			cmd.SysProcAttr = burnAttr()
			err := cmd.Start()
			started <- err
			if err != nil {
				return
			}
			<-done
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}()
		if err := <-started; err != nil {
			<-ended
			rest()
			return nil, errors.Join(fmt.Errorf("starting a process that keeps the processor busy: %w", err))
		}
		ends = append(ends, func() { close(done); <-ended })
	}
	return rest, nil
}
