package command

import (
	"fmt"
	"math"

	"github.com/aiondb/aiondb-ha/protocol"
)

// Decode reads a command in any JSON form that means one: blanks, any order of
// fields, any escapes. The result shares no memory with data.
//
// It is as strict as it is safe to be: every field of the command is there,
// once; numbers are whole, without sign, point or exponent, and fit; text is
// UTF-8; nothing follows. Fields that the command does not have are read and
// ignored, as AionDB does. Every error wraps ErrMalformed; one about a name
// that is none of the seven wraps ErrUnknown too, and one about more
// than MaxCommandLen bytes ErrTooLong.
func Decode(data []byte) (Command, error) {
	if len(data) > MaxCommandLen {
		return nil, tooLong(len(data))
	}
	p := parser{in: data}
	c, err := p.command()
	if err == nil {
		err = p.end()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: byte %d: %w", ErrMalformed, p.at, err)
	}
	return c, nil
}

// command reads "Noop" or an object of one member, the command's name.
func (p *parser) command() (Command, error) {
	if p.peek() == '"' {
		name, err := p.text()
		if err != nil {
			return nil, err
		}
		switch {
		case name == nameNoop:
			return Noop{}, nil
		case known(name):
			return nil, fmt.Errorf("%s without its fields", name)
		}
		return nil, unknown(name)
	}
	if err := p.open('{'); err != nil {
		return nil, err
	}
	name, err := p.name()
	if err != nil {
		return nil, err
	}
	if !known(name) {
		return nil, unknown(name)
	}
	c, err := p.content(name)
	if err != nil {
		return nil, err
	}
	if p.peek() == ',' {
		return nil, fmt.Errorf("more than one command")
	}
	return c, p.close('}')
}

func known(name string) bool {
	switch name {
	case nameNoop, nameAddNode, nameRemoveNode, nameAssignShard, nameTransferShard, nameUpdateConfig, nameKvWrite:
		return true
	}
	return false
}

// maxShownName is how much of an unknown name an error repeats, in bytes.
const maxShownName = 64

func unknown(name string) error {
	return fmt.Errorf("%w %q", ErrUnknown, name[:min(len(name), maxShownName)])
}

// content reads what stands behind the command's name.
func (p *parser) content(name string) (Command, error) {
	switch name {
	case nameNoop:
		return Noop{}, p.word("null")
	case nameAddNode:
		var c AddNode
		return p.fields(&c, field{"node_id", node(&c.NodeID)}, field{"address", text(&c.Address)})
	case nameRemoveNode:
		var c RemoveNode
		return p.fields(&c, field{"node_id", node(&c.NodeID)})
	case nameAssignShard:
		var c AssignShard
		return p.fields(&c, field{"table_id", u64(&c.TableID)}, field{"shard_id", u32(&c.ShardID)},
			field{"node_id", node(&c.NodeID)})
	case nameTransferShard:
		var c TransferShard
		return p.fields(&c, field{"table_id", u64(&c.TableID)}, field{"shard_id", u32(&c.ShardID)},
			field{"from_node", node(&c.FromNode)}, field{"to_node", node(&c.ToNode)})
	case nameUpdateConfig:
		var c UpdateConfig
		return p.fields(&c, field{"key", text(&c.Key)}, field{"value", text(&c.Value)})
	case nameKvWrite:
		var c KvWrite
		return p.fields(&c, field{"key", byteString(&c.Key)}, field{"value", optional(&c.Value, &c.Delete)})
	}
	return nil, unknown(name)
}

// field is a member that must be there, and what reads it.
type field struct {
	name string
	read func(*parser) error
}

// fields reads an object: each of want once, in any order, others ignored. c
// points to the command they fill, which is returned as a value.
func (p *parser) fields(c any, want ...field) (Command, error) {
	if err := p.open('{'); err != nil {
		return nil, err
	}
	var seen uint // bit i: want[i] was read
	for first := true; p.peek() != '}'; first = false {
		if !first {
			if err := p.separator(); err != nil {
				return nil, err
			}
		}
		name, err := p.name()
		if err != nil {
			return nil, err
		}
		i := 0
		for i < len(want) && want[i].name != name {
			i++
		}
		if i == len(want) {
			if err := p.skip(); err != nil {
				return nil, err
			}
			continue
		}
		if seen&(1<<i) != 0 {
			return nil, fmt.Errorf("field %s is there twice", name)
		}
		seen |= 1 << i
		if err := want[i].read(p); err != nil {
			return nil, fmt.Errorf("field %s: %w", name, err)
		}
	}
	for i, f := range want {
		if seen&(1<<i) == 0 {
			return nil, fmt.Errorf("field %s is missing", f.name)
		}
	}
	return value(c), p.close('}')
}

func value(c any) Command {
	switch c := c.(type) {
	case *AddNode:
		return *c
	case *RemoveNode:
		return *c
	case *AssignShard:
		return *c
	case *TransferShard:
		return *c
	case *UpdateConfig:
		return *c
	case *KvWrite:
		return *c
	}
	panic(fmt.Sprintf("command: %T is no pointer to a command", c))
}

func u64(to *uint64) func(*parser) error {
	return func(p *parser) (err error) {
		*to, err = p.number(math.MaxUint64)
		return err
	}
}

func u32(to *uint32) func(*parser) error {
	return func(p *parser) error {
		n, err := p.number(math.MaxUint32)
		*to = uint32(n)
		return err
	}
}

func node(to *protocol.NodeID) func(*parser) error {
	return func(p *parser) error {
		n, err := p.number(math.MaxUint64)
		*to = protocol.NodeID(n)
		return err
	}
}

func text(to *string) func(*parser) error {
	return func(p *parser) (err error) {
		*to, err = p.text()
		return err
	}
}

func byteString(to *[]byte) func(*parser) error {
	return func(p *parser) (err error) {
		*to, err = p.byteString()
		return err
	}
}

// optional reads a byte string, or null, for which it sets absent.
func optional(to *[]byte, absent *bool) func(*parser) error {
	return func(p *parser) error {
		if p.peek() == 'n' {
			*absent = true
			return p.word("null")
		}
		return byteString(to)(p)
	}
}
