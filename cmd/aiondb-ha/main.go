// Command aiondb-ha runs a node, asks and changes a cluster, reads its log on
// disk, and shows a failover. See aiondb-ha help.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// version is set by the linker when a release is built.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // the second signal ends the program at once
	a := &app{
		ctx:     ctx,
		stdin:   os.Stdin,
		stdout:  os.Stdout,
		stderr:  os.Stderr,
		environ: os.Environ(),
	}
	os.Exit(a.run(os.Args[1:]))
}
