package democluster

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/aiondb/aiondb-ha/internal/term"
)

const (
	titleWidth = 11

	// progressAfter is how long a wait may take before it shows.
	progressAfter = 300 * time.Millisecond
	progressEvery = 100 * time.Millisecond
)

// story writes the tour for people. Lines that went out stay as they are; on a
// terminal one more line, the last, shows what is being waited for. It is safe
// for concurrent use.
type story struct {
	term.Style
	live bool // the last line may be rewritten

	mu   sync.Mutex
	w    io.Writer
	step int
	wait bool // the last line is a progress line
}

// line writes one line.
func (s *story) line(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.erase()
	fmt.Fprintln(s.w, strings.TrimRight(fmt.Sprintf(format, args...), " "))
}

// chapter writes the first line of the next step: what is done, and what came of it.
func (s *story) chapter(title, format string, args ...any) {
	s.step++
	s.line("  %s  %s  %s", s.Dim(fmt.Sprintf("%2d", s.step)), pad(s.Bold(title), titleWidth), fmt.Sprintf(format, args...))
}

// more writes a further line of the step, with a title of its own or none.
func (s *story) more(title, format string, args ...any) {
	s.line("      %s  %s", pad(title, titleWidth), fmt.Sprintf(format, args...))
}

// table writes t, indented like the steps.
func (s *story) table(t *term.Table) {
	var b strings.Builder
	_ = t.Write(&b, s.Style) // a Builder takes everything
	for row := range strings.Lines(b.String()) {
		s.line("  %s", strings.TrimRight(row, "\n"))
	}
}

// waiting shows, as long as it takes, what is being waited for. The function it
// returns ends that and must be called.
func (s *story) waiting(what func() string) (done func()) {
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
				s.mu.Lock()
				s.erase()
				fmt.Fprintf(s.w, "  %s  %s %s", s.Cyan(" "+string(spoke)), what(), s.Dim(fmt.Sprintf("%.1f s", passed.Seconds())))
				s.wait = true
				s.mu.Unlock()
			}
		}
	}()
	return func() {
		close(stop)
		<-stopped
		s.mu.Lock()
		defer s.mu.Unlock()
		s.erase()
	}
}

// erase takes the progress line away; s.mu is held.
func (s *story) erase() {
	if s.wait {
		fmt.Fprint(s.w, "\r\x1b[K")
		s.wait = false
	}
}

// pad fills text with blanks up to width columns.
func pad(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-term.Width(text)))
}

// millis writes a duration the way the tour does.
func millis(d time.Duration) string {
	switch ms := float64(d) / float64(time.Millisecond); {
	case ms < 10:
		return fmt.Sprintf("%.1f ms", ms)
	case ms < 10000:
		return fmt.Sprintf("%.0f ms", ms)
	default:
		return fmt.Sprintf("%.1f s", ms/1000)
	}
}

// count writes a number with its thousands apart.
func count(n int) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + " " + text[i:]
	}
	return text
}
