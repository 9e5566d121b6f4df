package democluster

import "runtime"

// forker starts child processes from one operating system thread that lives
// until all of them are gone. The kernel's parent-death signal follows the
// thread that forked, not the process: a child forked by an ordinary goroutine
// would be killed when the runtime retires the thread that goroutine happened
// to be on.
type forker struct {
	jobs chan func()
	done chan struct{}
}

func newForker() *forker {
	f := &forker{jobs: make(chan func()), done: make(chan struct{})}
	go func() {
		defer close(f.done)
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine, after the last child
		for job := range f.jobs {
			job()
		}
	}()
	return f
}

// do runs job on the forking thread and waits for it.
func (f *forker) do(job func() error) error {
	result := make(chan error, 1)
	f.jobs <- func() { result <- job() }
	return <-result
}

// close ends the thread. Every child must have been waited for.
func (f *forker) close() {
	close(f.jobs)
	<-f.done
}
