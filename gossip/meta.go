package gossip

import (
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/hashicorp/memberlist"

	"github.com/aiondb/aiondb-ha/protocol"
)

// metaVersion is the first byte of a node's meta data.
const metaVersion = 1

// errMeta is wrapped by every error of decodeMeta.
var errMeta = errors.New("malformed node meta data")

// meta is what a node tells about itself beside its ID and IP address:
//
//	version u8 = 1 | 4 x ( length u16 LE | bytes ):
//	    HA address, database address, API address, software version
//
// At most 512 bytes in all (memberlist.MetaMaxSize). A later release may append
// fields; what follows the four is ignored.
type meta struct {
	addr, databaseAddr, apiAddr, version string
}

func (m meta) fields() [4]string { return [4]string{m.addr, m.databaseAddr, m.apiAddr, m.version} }

// encode fails if a field is not UTF-8 or all of it is too long.
func (m meta) encode() ([]byte, error) {
	out := []byte{metaVersion}
	for _, f := range m.fields() {
		if !utf8.ValidString(f) {
			return nil, fmt.Errorf("%q is not UTF-8", f)
		}
		if len(f) > protocol.MaxAddrLen {
			return nil, fmt.Errorf("%.40q… has %d bytes, at most %d are allowed", f, len(f), protocol.MaxAddrLen)
		}
		out = append(out, byte(len(f)), byte(len(f)>>8))
		out = append(out, f...)
	}
	if len(out) > memberlist.MetaMaxSize {
		return nil, fmt.Errorf("the HA, database and API addresses and the version have %d bytes together, at most %d fit: use shorter host names",
			len(out), memberlist.MetaMaxSize)
	}
	return out, nil
}

func decodeMeta(raw []byte) (meta, error) {
	var m meta
	if len(raw) > memberlist.MetaMaxSize {
		return m, fmt.Errorf("%w: %d bytes", errMeta, len(raw))
	}
	if len(raw) == 0 || raw[0] != metaVersion {
		return m, fmt.Errorf("%w: not of version %d", errMeta, metaVersion)
	}
	raw = raw[1:]
	for i, f := range []*string{&m.addr, &m.databaseAddr, &m.apiAddr, &m.version} {
		if len(raw) < 2 {
			return meta{}, fmt.Errorf("%w: cut off before field %d", errMeta, i+1)
		}
		n := int(raw[0]) | int(raw[1])<<8
		raw = raw[2:]
		if len(raw) < n {
			return meta{}, fmt.Errorf("%w: field %d cut off", errMeta, i+1)
		}
		if !utf8.Valid(raw[:n]) {
			return meta{}, fmt.Errorf("%w: field %d is not UTF-8", errMeta, i+1)
		}
		*f, raw = string(raw[:n]), raw[n:]
	}
	return m, nil
}
