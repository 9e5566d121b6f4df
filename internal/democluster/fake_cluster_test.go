package democluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// fakeMember is a node of a cluster that shares one directory: who holds the
// lock on a file is primary, and the data is one file. The kernel frees the
// lock when its holder is killed, which is all the failover there is.
type fakeMember struct {
	id    int
	dir   string // shared
	lossy bool   // a new primary forgets some of what the old one acknowledged
	// stubborn members refuse to hand over
	stubborn bool

	mu    sync.Mutex
	lock  *os.File // held: this node is primary
	epoch int
	data  *os.File
	lsn   int
}

func (m *fakeMember) path(name string) string { return filepath.Join(m.dir, "fake."+name) }

// number reads a number from a shared file; 0 if there is none.
func (m *fakeMember) number(name string) (n int) {
	raw, _ := os.ReadFile(m.path(name))
	_, _ = fmt.Sscan(string(raw), &n)
	return n
}

func (m *fakeMember) setNumber(name string, n int) {
	temp := m.path(name) + fmt.Sprint(m.id)
	_ = os.WriteFile(temp, fmt.Append(nil, n), 0o600)
	_ = os.Rename(temp, m.path(name))
}

// contend takes the primacy when it is free, and gives it up when another is wanted.
func (m *fakeMember) contend() {
	for range time.Tick(3 * time.Millisecond) {
		m.mu.Lock()
		want := m.number("want")
		switch {
		case m.lock != nil && want != 0 && want != m.id:
			_, _ = m.data.Close(), m.lock.Close()
			m.lock = nil
		case m.lock == nil && (want == 0 || want == m.id):
			m.promote()
		}
		m.mu.Unlock()
	}
}

func (m *fakeMember) promote() {
	lock, err := os.OpenFile(m.path("lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return
	}
	if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		_ = lock.Close()
		return
	}
	m.epoch = m.number("epoch") + 1
	raw, _ := os.ReadFile(m.path("data"))
	if m.lossy && m.epoch > 1 {
		raw = raw[:bytes.LastIndexByte(raw[:max(len(raw)-1, 0)], '\n')+1]
		_ = os.WriteFile(m.path("data"), raw, 0o600)
	}
	m.data, _ = os.OpenFile(m.path("data"), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	m.lsn, m.lock = bytes.Count(raw, []byte{'\n'}), lock
	m.setNumber("epoch", m.epoch)
	m.setNumber("primary", m.id)
	m.setNumber("want", 0)
}

func (m *fakeMember) handler() http.Handler {
	mux := http.NewServeMux()
	refuse := func(w http.ResponseWriter) {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintf(w, `{"error":"not primary","code":"not_primary","primary":%d}`, m.number("primary"))
	}
	mux.HandleFunc("PUT /v1/data/{key}", func(w http.ResponseWriter, r *http.Request) {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.lock == nil {
			refuse(w)
			return
		}
		value, _ := io.ReadAll(r.Body)
		m.lsn++
		line, _ := json.Marshal(map[string]any{"key": r.PathValue("key"), "value": string(value), "epoch": m.epoch, "lsn": m.lsn})
		_, _ = m.data.Write(append(line, '\n'))
		fmt.Fprintf(w, `{"epoch":%d,"lsn":%d}`, m.epoch, m.lsn)
	})
	mux.HandleFunc("GET /v1/data", func(w http.ResponseWriter, _ *http.Request) {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.lock == nil {
			refuse(w)
			return
		}
		raw, _ := os.ReadFile(m.path("data"))
		_, _ = w.Write(raw)
	})
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) {
		m.mu.Lock()
		defer m.mu.Unlock()
		role, epoch := "replica", m.number("epoch")
		if m.lock != nil {
			role = "primary"
		}
		_ = json.NewEncoder(w).Encode(map[string]any{
			"node_id": m.id, "role": role, "epoch": epoch, "primary": m.number("primary"),
			"position": map[string]int{"timeline": 1, "lsn": 1},
		})
	})
	mux.HandleFunc("POST /v1/switchover", func(w http.ResponseWriter, r *http.Request) {
		var body struct{ To int }
		if json.NewDecoder(r.Body).Decode(&body) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		if m.stubborn {
			w.WriteHeader(http.StatusConflict)
			fmt.Fprint(w, `{"error":"not today","code":"refused"}`)
			return
		}
		m.setNumber("want", body.To)
		for m.number("primary") != body.To {
			time.Sleep(time.Millisecond)
		}
	})
	return mux
}

func newFakeMember(id int, how string) (*fakeMember, error) {
	dir := os.Getenv("AIONDB_HA_DATA_DIR")
	if dir == "" || !strings.HasSuffix(dir, fmt.Sprint("node-", id)) {
		return nil, errors.New("no data directory")
	}
	m := &fakeMember{id: id, dir: filepath.Dir(dir), lossy: how == "lossy", stubborn: how == "stubborn"}
	go m.contend()
	return m, nil
}
