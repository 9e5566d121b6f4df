// Package fencing holds the three things that keep an old primary from doing
// harm: the floor, a promise on disk; the guard, a word in memory; and the
// lease, which says until when the guard may stay open unasked.
//
//	ballot of epoch E ──► Guard.CloseBelow(E)      nothing of an older epoch is acknowledged here any more
//	                      Floor.Promise(E, who)    durable: not after a restart either
//	                      (database fenced at E)   no WAL of an older epoch is taken
//	                      answer sent
//
//	ballot of E won   ──► Guard.Open(E)            Check(E) is nil from here on, while the lease runs
//	primacy over      ──► Guard.Close(cause)       Check(E) fails from here on, for ever
//
//	leader            AppendEntries of E sent at s ──► voter lets it succeed
//	Stamps.Note(E, voter, s)                           Help.Note(E, then)
//	Guard.Extend(E, Stamps.Deadline)                   ballot of E' answered with Help.Age(E')
//	  = quorum-th newest s + D·(1−ε)          winner   Outwait.Until = youngest help + D·(1+ε), then promoted
//
// The lease rests on one thing: a voter that has answered a ballot lets no
// AppendEntries of an older epoch succeed any more. A quorum that helped and a
// quorum that granted share a voter; what it helped last was sent before that,
// and has run out when the winner has waited. Only the rates of the clocks
// matter, and may be off by ε ([DriftPercent]).
//
// A database asks [Guard.Check] before every acknowledgement and before every
// read that must be current. It costs a few atomic loads and, when the
// primacy is leased, one reading of the clock: see [QuickClock].
//
// What passed the guard a moment before the process was stopped still leaves
// it when it is woken. To the replicated state it does no harm: the write is
// safe, and the read was current when the client had asked already. Who must
// not hear an old primary speak after a new one either sends along how long the
// answer is valid ([Guard.CheckUntil], [ValidFor]), and the client takes what
// comes later as of unknown outcome.
//
// The invariants of the failover protocol that are enforced here:
//
//	I1  one open guard a node, one node an epoch: Floor.Promise gives an epoch to one node only; Guard.Open refuses a closed epoch.
//	    One open guard at any instant: Stamps.Deadline ends before Outwait.Until.
//	I2  the floor never goes down, and a damaged file is an error: Floor.Promise, OpenFloor.
//	I4  the deadline is read on every Check, from a clock that counts suspended time: Guard.Check.
//	    It is counted from when a message was sent, not from when its answer came: Stamps.Note.
//	I5  what is closed for an epoch stays closed: Guard.CloseBelow.
package fencing
