package protocol

// Fork is one line of the timeline history: the promotion that began an epoch.
type Fork struct {
	Epoch  Epoch  `json:"epoch"`   // the epoch, and the timeline, that begins
	NodeID NodeID `json:"node_id"` // its primary
	Parent Epoch  `json:"parent"`  // timeline of that primary's last record when it was promoted; 0 for an empty log
	LSN    LSN    `json:"lsn"`     // last LSN of the parent that the new timeline keeps
}

// History is the committed timeline history, ascending by Epoch, one Fork an
// epoch. Not every Fork is an ancestor of the newest one: an epoch whose
// primary died before anybody received a record of it has no descendants.
type History []Fork

// Segment is a stretch of log written in one epoch: it begins behind the
// segment before it and reaches up to and including End.
type Segment struct {
	Epoch Epoch `json:"epoch"`
	End   LSN   `json:"end"`
}

// Lineage is the sequence of stretches a log is made of, oldest first, with
// strictly rising epochs and ends. The last one of the lineage of a timeline
// that is being written ends at MaxLSN.
type Lineage []Segment
