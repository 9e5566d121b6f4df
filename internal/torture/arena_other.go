//go:build !linux

package torture

import (
	"os"
	"syscall"
)

func newArena(int) arena { return plain{why: "name spaces are a thing of Linux"} }

// Confine does nothing where there are no name spaces.
func Confine(<-chan os.Signal) (code int, killed string, done bool) { return 0, "", false }

func burnAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
