package command

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"unicode/utf16"
	"unicode/utf8"
)

// parser reads JSON from in, which is bounded by MaxCommandLen. Its methods
// skip blanks in front of what they read. depth counts the arrays and objects
// that are open.
type parser struct {
	in    []byte
	at    int
	depth int
}

var (
	errEnd   = errors.New("ends too early")
	errDepth = fmt.Errorf("nested deeper than %d", MaxDepth)
	errUTF8  = errors.New("text that is not UTF-8")
	errRange = errors.New("number out of range")
	errWhole = errors.New("want a whole number without sign")
)

// peek returns the next byte that is no blank, without eating it; 0 at the end.
func (p *parser) peek() byte {
	for ; p.at < len(p.in); p.at++ {
		switch b := p.in[p.at]; b {
		case ' ', '\t', '\n', '\r':
		default:
			return b
		}
	}
	return 0
}

// eat eats the byte want.
func (p *parser) eat(want byte) error {
	got := p.peek()
	if p.at == len(p.in) {
		return errEnd
	}
	if got != want {
		return fmt.Errorf("found %q, want %q", got, want)
	}
	p.at++
	return nil
}

func (p *parser) open(bracket byte) error {
	if p.depth++; p.depth > MaxDepth {
		return errDepth
	}
	return p.eat(bracket)
}

func (p *parser) close(bracket byte) error {
	p.depth--
	return p.eat(bracket)
}

// separator eats a comma that something follows.
func (p *parser) separator() error {
	if err := p.eat(','); err != nil {
		return err
	}
	if b := p.peek(); b == '}' || b == ']' {
		return fmt.Errorf("comma before %q", b)
	}
	return nil
}

// end makes sure that nothing but blanks is left.
func (p *parser) end() error {
	if p.peek(); p.at < len(p.in) {
		return errors.New("something follows the command")
	}
	return nil
}

func (p *parser) word(w string) error {
	p.peek()
	if !bytes.HasPrefix(p.in[p.at:], []byte(w)) {
		return fmt.Errorf("want %s", w)
	}
	p.at += len(w)
	return nil
}

// name reads a member's name and the colon behind it.
func (p *parser) name() (string, error) {
	name, err := p.text()
	if err != nil {
		return "", err
	}
	return name, p.eat(':')
}

// number reads a whole number up to limit: digits, no leading zero, no sign,
// point or exponent.
func (p *parser) number(limit uint64) (uint64, error) {
	if b := p.peek(); b < '0' || b > '9' {
		return 0, errWhole
	}
	var n uint64
	from := p.at
	for ; p.at < len(p.in) && isDigit(p.in[p.at]); p.at++ {
		d := uint64(p.in[p.at] - '0')
		if n > (math.MaxUint64-d)/10 {
			return 0, errRange
		}
		n = n*10 + d
	}
	if p.in[from] == '0' && p.at > from+1 {
		return 0, errors.New("number with a leading zero")
	}
	if p.at < len(p.in) && (p.in[p.at] == '.' || p.in[p.at] == 'e' || p.in[p.at] == 'E') {
		return 0, errWhole
	}
	if n > limit {
		return 0, errRange
	}
	return n, nil
}

func isDigit(b byte) bool { return '0' <= b && b <= '9' }

// byteString reads an array of numbers up to 255.
func (p *parser) byteString() ([]byte, error) {
	if err := p.open('['); err != nil {
		return nil, err
	}
	data := make([]byte, 0, p.elements())
	for p.peek() != ']' {
		if len(data) > 0 {
			if err := p.separator(); err != nil {
				return nil, err
			}
		}
		n, err := p.number(math.MaxUint8)
		if err != nil {
			return nil, err
		}
		data = append(data, byte(n))
	}
	return data, p.close(']')
}

// elements guesses how many numbers follow up to the next bracket. It can be
// no more than the input has bytes.
func (p *parser) elements() int {
	end := bytes.IndexByte(p.in[p.at:], ']')
	if end <= 0 {
		return 0
	}
	return bytes.Count(p.in[p.at:p.at+end], []byte{','}) + 1
}

// text reads a string.
func (p *parser) text() (string, error) {
	if err := p.eat('"'); err != nil {
		return "", err
	}
	from := p.at
	for ; p.at < len(p.in); p.at++ {
		switch b := p.in[p.at]; {
		case b == '"':
			if !utf8.Valid(p.in[from:p.at]) {
				return "", errUTF8
			}
			s := string(p.in[from:p.at])
			p.at++
			return s, nil
		case b == '\\':
			return p.escapedText(from)
		case b < ' ':
			return "", fmt.Errorf("control character %#02x in text", b)
		}
	}
	return "", errEnd
}

// escapedText goes on with a string that began at from, at its first escape.
func (p *parser) escapedText(from int) (string, error) {
	out := append([]byte(nil), p.in[from:p.at]...)
	for p.at < len(p.in) {
		b := p.in[p.at]
		p.at++
		switch {
		case b == '"':
			if !utf8.Valid(out) {
				return "", errUTF8
			}
			return string(out), nil
		case b == '\\':
			r, err := p.escape()
			if err != nil {
				return "", err
			}
			out = utf8.AppendRune(out, r)
		case b < ' ':
			return "", fmt.Errorf("control character %#02x in text", b)
		default:
			out = append(out, b)
		}
	}
	return "", errEnd
}

// escape reads what follows a backslash.
func (p *parser) escape() (rune, error) {
	if p.at == len(p.in) {
		return 0, errEnd
	}
	b := p.in[p.at]
	p.at++
	switch b {
	case '"', '\\', '/':
		return rune(b), nil
	case 'b':
		return '\b', nil
	case 'f':
		return '\f', nil
	case 'n':
		return '\n', nil
	case 'r':
		return '\r', nil
	case 't':
		return '\t', nil
	case 'u':
		return p.unicode()
	}
	return 0, fmt.Errorf("unknown escape \\%q", b)
}

// unicode reads the digits of one \u escape, and of the second one that a
// character above U+FFFF takes.
func (p *parser) unicode() (rune, error) {
	r, err := p.hex4()
	if err != nil || !utf16.IsSurrogate(r) {
		return r, err
	}
	if !bytes.HasPrefix(p.in[p.at:], []byte(`\u`)) {
		return 0, errors.New("half a surrogate pair")
	}
	p.at += 2
	low, err := p.hex4()
	if err != nil {
		return 0, err
	}
	if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
		return 0, errors.New("half a surrogate pair")
	}
	return r, nil
}

func (p *parser) hex4() (rune, error) {
	if len(p.in)-p.at < 4 {
		return 0, errEnd
	}
	var r rune
	for _, b := range p.in[p.at : p.at+4] {
		switch {
		case isDigit(b):
			b -= '0'
		case 'a' <= b && b <= 'f':
			b -= 'a' - 10
		case 'A' <= b && b <= 'F':
			b -= 'A' - 10
		default:
			return 0, fmt.Errorf("%q is no hexadecimal digit", b)
		}
		r = r<<4 | rune(b)
	}
	p.at += 4
	return r, nil
}
