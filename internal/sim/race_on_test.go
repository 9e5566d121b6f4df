//go:build race

package sim

// raced: the race detector makes everything several times slower.
const raced = true
