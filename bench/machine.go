package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
)

// machine is what was measured on: the parts that matter, no names.
type machine struct {
	Cores      int    `json:"cores"`
	Processor  string `json:"processor,omitempty"`
	Memory     string `json:"memory,omitempty"`
	Kernel     string `json:"kernel,omitempty"`
	Disk       string `json:"disk,omitempty"`
	FileSystem string `json:"file_system,omitempty"`
	Go         string `json:"go"`
	Platform   string `json:"platform"`
	// Peers are the versions of the stores that are compared with.
	Peers []string `json:"peers"`
}

// peerModules are the modules whose versions a reader wants to know.
var peerModules = []string{
	"github.com/hashicorp/raft", "github.com/hashicorp/raft-wal", "github.com/hashicorp/raft-boltdb/v2", "go.etcd.io/bbolt",
}

func describeMachine(dir string) machine {
	m := machine{Cores: runtime.NumCPU(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	m.describe(dir)
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return m
	}
	for _, path := range peerModules {
		for _, dep := range info.Deps {
			if dep.Path == path {
				m.Peers = append(m.Peers, path+" "+dep.Version)
			}
		}
	}
	return m
}

// lines returns name and value of everything that is known.
func (m machine) lines() [][2]string {
	all := [][2]string{
		{"cores", fmt.Sprint(m.Cores)}, {"processor", m.Processor}, {"memory", m.Memory}, {"disk", m.Disk},
		{"file system", m.FileSystem}, {"kernel", m.Kernel}, {"Go", m.Go + " " + m.Platform},
	}
	for _, p := range m.Peers {
		all = append(all, [2]string{"built with", p})
	}
	known := all[:0]
	for _, l := range all {
		if l[1] != "" {
			known = append(known, l)
		}
	}
	return known
}

func (m machine) writeText(w io.Writer) {
	for _, l := range m.lines() {
		fmt.Fprintf(w, "%-12s %s\n", l[0], l[1])
	}
}
