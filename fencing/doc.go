// Package fencing holds the two things that keep an old primary from doing
// harm: the floor, a promise on disk, and the guard, a word in memory.
//
//	ballot of epoch E ──► Guard.CloseBelow(E)      nothing of an older epoch is acknowledged here any more
//	                      Floor.Promise(E, who)    durable: not after a restart either
//	                      (database fenced at E)   no WAL of an older epoch is taken
//	                      answer sent
//
//	ballot of E won   ──► Guard.Open(E)            Check(E) is nil from here on, while the lease runs
//	primacy over      ──► Guard.Close(cause)       Check(E) fails from here on, for ever
//
// A database asks [Guard.Check] before every acknowledgement and before every
// read that must be current. It costs an atomic load or two and, when the
// primacy is leased, one reading of the clock.
//
// The invariants of the failover protocol that are enforced here:
//
//	I1  one open guard a node, one node an epoch: Floor.Promise gives an epoch to one node only; Guard.Open refuses a closed epoch.
//	I2  the floor never goes down, and a damaged file is an error: Floor.Promise, OpenFloor.
//	I4  the deadline is read on every Check, from a clock that counts suspended time: Guard.Check.
//	I5  what is closed for an epoch stays closed: Guard.CloseBelow.
package fencing
