package torture

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// runningName marks a temporary directory whose run has not ended in order. The
// run holds a lock on it, which the kernel takes away with the process.
const runningName = "running"

// prepareDir makes the directory of the run, and clears away what runs left
// that were killed.
func (r *run) prepareDir() error {
	if r.cfg.Keep != "" {
		dir, err := filepath.Abs(r.cfg.Keep)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("making the directory to keep: %w", err)
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			return fmt.Errorf("reading the directory to keep: %w", err)
		}
		if len(entries) > 0 {
			return fmt.Errorf("%s: directory is not empty: give a new one, or empty it", dir)
		}
		r.dir = dir
		return nil
	}
	clearLeftovers(os.TempDir())
	dir, err := os.MkdirTemp("", tempPattern)
	if err != nil {
		return err
	}
	r.dir, r.temp = dir, true
	mark, err := os.OpenFile(filepath.Join(dir, runningName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	r.mark = mark // held until the end
	return syscall.Flock(int(mark.Fd()), syscall.LOCK_EX)
}

// clearLeftovers removes the directories of runs that did not come to their end.
func clearLeftovers(temp string) {
	marks, _ := filepath.Glob(filepath.Join(temp, tempPattern+"*", runningName))
	for _, path := range marks {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			continue
		}
		if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			_ = os.RemoveAll(filepath.Dir(path))
		}
		_ = f.Close()
	}
}

// leaveDir gives the disks back, and removes the directory unless it is to be
// kept or something is wrong.
func (r *run) leaveDir(broken bool) error {
	keep := !r.temp || broken
	var errs []error
	for _, dir := range r.disks {
		errs = append(errs, r.arena.Leave(dir, keep))
	}
	if keep {
		r.verdict.Dir = r.dir
		if r.temp {
			errs = append(errs, os.Remove(filepath.Join(r.dir, runningName)))
		}
	} else {
		errs = append(errs, os.RemoveAll(r.dir))
	}
	if r.mark != nil {
		errs = append(errs, r.mark.Close())
	}
	err := errors.Join(errs...)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
