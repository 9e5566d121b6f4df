//go:build !linux

package vfs

import (
	"errors"
	"os"
)

// Exchange implements FS: it is not there.
func (OS) Exchange(a, b string) error {
	return &os.LinkError{Op: "exchange", Old: a, New: b, Err: errors.ErrUnsupported}
}
