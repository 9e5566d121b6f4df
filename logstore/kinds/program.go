package kinds

import (
	"os"
	"path/filepath"

	"github.com/aiondb/aiondb-ha/logstore"
)

// Program is a directory of a program that is known to keep a Raft log, and
// where in it the log lies.
type Program struct {
	Name string // as its makers write it
	Log  logstore.Location

	// Offline says what can be done with its log while it is stopped, and what
	// the program itself would still need.
	Offline string
}

// layout is how a program arranges its data directory.
type layout struct {
	name    string
	offline string
	// signs are paths of which all must be there: any of the alternatives of each.
	signs [][]string
	// raft is where its log may lie: a bolt file, and a directory of raft-wal.
	bolt, wal string
}

const stopped = "While it is stopped, its log can be migrated in full, to be read with grep and jq, and back. "

func layouts() []layout {
	return []layout{
		{
			name: "Vault", bolt: "raft/raft.db", wal: "raft/wal",
			signs: [][]string{{"vault.db"}, {"raft"}},
			offline: stopped + "Its binary opens raft-boltdb and raft-wal (raft_wal = true in its storage stanza) and no other store: " +
				"it would have to be built with jsonlstore in physical/raft. The stored data are in vault.db, which is not part of the log.",
		},
		{
			name: "Nomad", bolt: "server/raft/raft.db", wal: "server/raft/wal",
			signs: [][]string{{"server"}, {"server/raft"}},
			offline: stopped + "Its binary opens raft-boltdb and raft-wal (raft_logstore in its server block) and no other store: " +
				"it would have to be built with jsonlstore in nomad/server.go.",
		},
		{
			name: "Consul", bolt: "raft/raft.db", wal: "raft/wal",
			signs: [][]string{{"raft"}, {"serf", "node-id", "checkpoint-signature"}},
			offline: stopped + "Its binary opens raft-boltdb and raft-wal (raft_logstore in its configuration) and no other store: " +
				"it would have to be built with jsonlstore in agent/consul/server.go.",
		},
		{
			name: "rqlite", bolt: "raft.db",
			signs: [][]string{{"raft.db"}, {"rsnapshots", "wsnapshots", "db.sqlite"}},
			offline: stopped + "Its binary opens raft-boltdb and no other store: it would have to be built with jsonlstore in store/store.go. " +
				"The entries hold compressed statements, which stay opaque in the readable log.",
		},
	}
}

// RecogniseProgram tells whose data directory dir looks like; false: nobody's
// that is known here. It only reads the names of files.
func RecogniseProgram(dir string) (Program, bool) {
	for _, l := range layouts() { // from the most special one on
		if !l.is(dir) {
			continue
		}
		if path := filepath.Join(dir, l.wal); l.wal != "" && WAL().Looks(path) {
			return Program{l.name, logstore.Location{Kind: WAL(), Path: path}, l.offline}, true
		}
		if path := filepath.Join(dir, l.bolt); isFile(path) {
			return Program{l.name, logstore.Location{Kind: BoltDB(), Path: path}, l.offline}, true
		}
	}
	return Program{}, false
}

func (l *layout) is(dir string) bool {
	for _, alternatives := range l.signs {
		some := false
		for _, name := range alternatives {
			_, err := os.Stat(filepath.Join(dir, name))
			some = some || err == nil
		}
		if !some {
			return false
		}
	}
	return true
}
