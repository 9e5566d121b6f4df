// Package term writes text for people: colours where a terminal shows them,
// tables that line up, and strings from outside made safe to print.
//
// It has no state. Everything it needs is an argument, so that output is the
// same in a test as on a screen.
package term

import (
	"io"
	"os"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// IsTerminal reports whether w is a file that is a terminal.
func IsTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && f != nil && isTerminal(f.Fd())
}

// Style colours text, or leaves it as it is. The zero value leaves it. It is
// safe for concurrent use.
type Style struct{ on bool }

// Plain never colours.
func Plain() Style { return Style{} }

// Colored always colours.
func Colored() Style { return Style{on: true} }

// For returns the style that fits w: coloured when w is a terminal, unless the
// environment says no with NO_COLOR (https://no-color.org: any value but the
// empty one) or TERM=dumb.
func For(w io.Writer, getenv func(string) string) Style {
	return Style{on: getenv("NO_COLOR") == "" && getenv("TERM") != "dumb" && IsTerminal(w)}
}

// On reports whether s colours.
func (s Style) On() bool { return s.on }

func (s Style) wrap(code, text string) string {
	if !s.on || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// Bold and the others return text in that look.
func (s Style) Bold(text string) string    { return s.wrap("1", text) }
func (s Style) Dim(text string) string     { return s.wrap("2", text) }
func (s Style) Red(text string) string     { return s.wrap("31", text) }
func (s Style) Green(text string) string   { return s.wrap("32", text) }
func (s Style) Yellow(text string) string  { return s.wrap("33", text) }
func (s Style) Blue(text string) string    { return s.wrap("34", text) }
func (s Style) Magenta(text string) string { return s.wrap("35", text) }
func (s Style) Cyan(text string) string    { return s.wrap("36", text) }

// Safe returns text with everything that a terminal could take for a command
// written as an escape (\n, \x1b, …), so that a value somebody else chose cannot
// move the cursor or forge a line. Text without such characters is returned as
// it is.
func Safe(text string) string {
	clean := true
	for _, r := range text {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			clean = false
			break
		}
	}
	if clean {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == utf8.RuneError && size <= 1:
			b.WriteString(`\x`)
			if text[i] < 16 {
				b.WriteByte('0')
			}
			b.WriteString(strconv.FormatUint(uint64(text[i]), 16))
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		i += size
	}
	return b.String()
}

// Width returns how many columns text takes: colour codes take none, every
// other rune one.
func Width(text string) int {
	n := 0
	for i := 0; i < len(text); {
		if strings.HasPrefix(text[i:], "\x1b[") {
			if end := strings.IndexByte(text[i:], 'm'); end > 0 {
				i += end + 1
				continue
			}
		}
		_, size := utf8.DecodeRuneInString(text[i:])
		i += size
		n++
	}
	return n
}
