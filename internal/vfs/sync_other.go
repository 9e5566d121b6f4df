//go:build !linux

package vfs

// Sync flushes the file with the strongest call the platform has.
func (f osFile) Sync() error { return f.File.Sync() }
