// Package e2e holds the tests that run the built binary as real processes:
// killed, paused, misconfigured and interrupted. There is no code here but
// tests.
package e2e
