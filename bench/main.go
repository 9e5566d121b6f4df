// Command bench measures jsonlstore beside the stores that hashicorp/raft is
// mostly used with, raft-wal and raft-boltdb: on the same disk, in the same
// run, by turns. docs/benchmarks.md is what it printed, and says how to read
// it.
//
//	go run . -quick              about a minute
//	go run .                     a log of 200,000 entries
//	go run . -full               a log of a million
//	go run . -only 'getlog|vote' what matches; -list names everything
//	go run . -full -markdown > ../docs/benchmarks.md
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime/pprof"
)

func main() {
	if err := execute(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// execute is the program, without the process around it.
func execute(args []string, out, progress io.Writer) (err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(progress)
	quick := flags.Bool("quick", false, "measure little: about a minute")
	full := flags.Bool("full", false, "measure a log of a million entries")
	list := flags.Bool("list", false, "name the measurements, make none")
	only := flags.String("only", "", "make only the measurements whose names match this regular `expression`")
	dir := flags.String("dir", "", "work in a new directory within this `directory`, on the disk to be measured (default: the temporary directory)")
	asJSON := flags.Bool("json", false, "print JSON")
	asMarkdown := flags.Bool("markdown", false, "print the text of docs/benchmarks.md")
	from := flags.String("from", "", "measure nothing, print what -json has written to this `file`")
	profile := flags.String("cpuprofile", "", "write a CPU profile to this `file`")
	if err := flags.Parse(args); err != nil {
		return err
	}
	b := &bench{scale: scales["standard"], listing: *list, progress: progress}
	switch {
	case *quick && *full:
		return fmt.Errorf("-quick and -full exclude each other")
	case *quick:
		b.scale = scales["quick"]
	case *full:
		b.scale = scales["full"]
	}
	if *from != "" {
		r, err := readReport(*from)
		if err != nil {
			return err
		}
		return r.print(out, *asJSON, *asMarkdown)
	}
	if b.only, err = regexp.Compile(*only); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp(*dir, "bench-"); err != nil {
		return err
	}
	defer func() {
		if removeErr := os.RemoveAll(b.dir); err == nil {
			err = removeErr
		}
	}()
	if *profile != "" {
		f, err := os.Create(*profile)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	if err := b.run(); err != nil {
		return err
	}
	if b.listing {
		for _, name := range b.names {
			fmt.Fprintln(out, name)
		}
		return nil
	}
	return b.report().print(out, *asJSON, *asMarkdown)
}
