//go:build !race

package jsonlstore

const raceEnabled = false
