//go:build race

package jsonlstore

// raceEnabled: the race detector makes pools forget at random.
const raceEnabled = true
