//go:build !(linux || darwin || freebsd || netbsd || openbsd || dragonfly)

package term

// isTerminal says no where we do not know how to ask: no colours then.
func isTerminal(uintptr) bool { return false }
