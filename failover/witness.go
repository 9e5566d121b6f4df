package failover

import (
	"context"
	"errors"

	"github.com/aiondb/aiondb-ha/protocol"
)

// Witness is the Database of a voter without data. It promises itself in
// ballots like any other, with a position below everybody's, and never becomes
// primary.
//
// It confirms no write. A write counts as safe when as many nodes with data
// have flushed it as make a quorum of the voters, the witness not among those
// who have it, though among the voters counted: of two nodes with data and a
// witness, both. One that was acknowledged by fewer could be missing on
// whoever wins the next ballot.
type Witness struct{}

var _ Database = Witness{}

// Position returns the zero position.
func (Witness) Position(context.Context) (protocol.Position, error) {
	return protocol.Position{}, nil
}

// Fence does nothing: there is no stream to refuse.
func (Witness) Fence(context.Context, protocol.Epoch) error { return nil }

// Promote fails.
func (Witness) Promote(context.Context, Promotion) error {
	return errors.New("a witness has no data")
}

// Demote does nothing: a witness follows nobody.
func (Witness) Demote(context.Context, Demotion) error { return nil }
