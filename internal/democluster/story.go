package democluster

import (
	"fmt"
	"strings"

	"github.com/aiondb/aiondb-ha/internal/term"
)

// titleWidth is how wide the titles of the steps are, columns.
const titleWidth = 11

// story writes the tour for people: numbered steps with titles.
type story struct {
	*term.Story
	step int
}

// chapter writes the first line of the next step: what is done, and what came of it.
func (s *story) chapter(title, format string, args ...any) {
	s.step++
	s.Line("  %s  %s  %s", s.Dim(fmt.Sprintf("%2d", s.step)), pad(s.Bold(title), titleWidth), fmt.Sprintf(format, args...))
}

// more writes a further line of the step, with a title of its own or none.
func (s *story) more(title, format string, args ...any) {
	s.Line("      %s  %s", pad(title, titleWidth), fmt.Sprintf(format, args...))
}

// pad fills text with blanks up to width columns.
func pad(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-term.Width(text)))
}
