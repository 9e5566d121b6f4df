package command

import "fmt"

// skip reads a value of any kind and forgets it. The value must be JSON, and
// nested no deeper than MaxDepth, the recursion's bound.
func (p *parser) skip() error {
	switch b := p.peek(); {
	case p.at == len(p.in):
		return errEnd
	case b == '{':
		return p.skipMembers('{', '}', func() error {
			if _, err := p.name(); err != nil {
				return err
			}
			return p.skip()
		})
	case b == '[':
		return p.skipMembers('[', ']', p.skip)
	case b == '"':
		_, err := p.text()
		return err
	case b == 't':
		return p.word("true")
	case b == 'f':
		return p.word("false")
	case b == 'n':
		return p.word("null")
	case b == '-' || isDigit(b):
		return p.skipNumber()
	default:
		return fmt.Errorf("found %q, want a value", b)
	}
}

func (p *parser) skipMembers(open, close byte, member func() error) error {
	if err := p.open(open); err != nil {
		return err
	}
	for first := true; p.peek() != close; first = false {
		if !first {
			if err := p.separator(); err != nil {
				return err
			}
		}
		if err := member(); err != nil {
			return err
		}
	}
	return p.close(close)
}

// skipNumber reads a number of any kind: sign, digits, fraction, exponent.
func (p *parser) skipNumber() error {
	p.skipByte("-")
	zero := p.at < len(p.in) && p.in[p.at] == '0'
	n, err := p.skipDigits()
	if err != nil {
		return err
	}
	if zero && n > 1 {
		return fmt.Errorf("number with a leading zero")
	}
	if p.skipByte(".") {
		if _, err := p.skipDigits(); err != nil {
			return err
		}
	}
	if p.skipByte("eE") {
		p.skipByte("+-")
		_, err = p.skipDigits()
	}
	return err
}

// skipByte eats the next byte if it is one of set. No blanks are skipped.
func (p *parser) skipByte(set string) bool {
	for i := range len(set) {
		if p.at < len(p.in) && p.in[p.at] == set[i] {
			p.at++
			return true
		}
	}
	return false
}

// skipDigits eats one digit or more and returns how many.
func (p *parser) skipDigits() (int, error) {
	from := p.at
	for p.at < len(p.in) && isDigit(p.in[p.at]) {
		p.at++
	}
	if p.at == from {
		return 0, fmt.Errorf("number without digits")
	}
	return p.at - from, nil
}
