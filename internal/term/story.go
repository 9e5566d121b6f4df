package term

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

const (
	// progressAfter is how long a wait may take before it shows.
	progressAfter = 300 * time.Millisecond
	progressEvery = 100 * time.Millisecond
)

// Story writes what happens for people, line by line. Lines that went out stay
// as they are; on a terminal one more line, the last, shows what is being waited
// for. It is safe for concurrent use.
type Story struct {
	Style
	live bool // the last line may be rewritten

	mu   sync.Mutex
	w    io.Writer
	wait bool // the last line is a progress line
}

// NewStory tells to w. live says that w is a terminal whose last line may be
// rewritten.
func NewStory(w io.Writer, style Style, live bool) *Story {
	return &Story{Style: style, live: live, w: w}
}

// Line writes one line, without blanks at its end.
func (s *Story) Line(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.erase()
	fmt.Fprintln(s.w, strings.TrimRight(fmt.Sprintf(format, args...), " "))
}

// Table writes t, indented by two.
func (s *Story) Table(t *Table) {
	var b strings.Builder
	_ = t.Write(&b, s.Style) // a Builder takes everything
	for row := range strings.Lines(b.String()) {
		s.Line("  %s", strings.TrimRight(row, "\n"))
	}
}

// Waiting shows, as long as it takes, what is being waited for. The function it
// returns ends that, must be called, and may be called again.
func (s *Story) Waiting(what func() string) (done func()) {
	if !s.live {
		return func() {}
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	start := time.Now()
	go func() {
		defer close(stopped)
		tick := time.NewTicker(progressEvery)
		defer tick.Stop()
		const wheel = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
		for turn := 0; ; turn++ {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			if passed := time.Since(start); passed >= progressAfter {
				spoke := []rune(wheel)[turn%10]
				text := what()
				s.mu.Lock()
				s.erase()
				fmt.Fprintf(s.w, "  %s  %s %s", s.Cyan(" "+string(spoke)), text, s.Dim(fmt.Sprintf("%.1f s", passed.Seconds())))
				s.wait = true
				s.mu.Unlock()
			}
		}
	}()
	return sync.OnceFunc(func() {
		close(stop)
		<-stopped
		s.mu.Lock()
		defer s.mu.Unlock()
		s.erase()
	})
}

// erase takes the progress line away; s.mu is held.
func (s *Story) erase() {
	if s.wait {
		fmt.Fprint(s.w, "\r\x1b[K")
		s.wait = false
	}
}
