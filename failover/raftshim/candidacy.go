package raftshim

import (
	"sync"
	"time"

	"github.com/aiondb/aiondb-ha/failover"
)

// candidacy notes when this node began to stand for a term, for the journal: a
// pre-vote is asked for when the leader has been silent for too long, a vote
// when a quorum would give theirs.
type candidacy struct {
	mu       sync.Mutex
	term     uint64 // the highest one stood for
	campaign failover.Campaign
}

func (c *candidacy) note(term uint64, at *time.Time) {
	if at.IsZero() && term == c.term {
		*at = time.Now()
	}
}

func (c *candidacy) begin(term uint64) {
	if term > c.term {
		c.term, c.campaign = term, failover.Campaign{}
	}
}

func (c *candidacy) asked(term uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.begin(term)
	c.note(term, &c.campaign.Asked)
}

func (c *candidacy) stood(term uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.begin(term)
	c.note(term, &c.campaign.Stood)
}

// of returns the campaign of a term; the zero value if this node did not stand
// for it, or was alone.
func (c *candidacy) of(term uint64) failover.Campaign {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.term != term {
		return failover.Campaign{}
	}
	return c.campaign
}
