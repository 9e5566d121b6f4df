//go:build !linux

package leasefile

import (
	"errors"
	"fmt"
	"runtime"
)

var errSystem = fmt.Errorf("a lease file takes Linux, this is %s: %w", runtime.GOOS, errors.ErrUnsupported)

type mapped struct {
	*words
	onDisk bool
}

// Close does nothing: there is never one.
func (*mapped) Close() error { return nil }

func thisHost() (host, uint64, error) { return host{}, 0, errSystem }

func mapForReading(string) (*words, func() error, error) { return nil, nil, errSystem }

func mapForWriting(string) (*mapped, error) { return nil, errSystem }
