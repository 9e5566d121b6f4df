// Package democluster runs a whole cluster as real processes on this machine,
// breaks it, and measures what a client saw.
//
//	          Tour ── tells the story, gives the Verdict
//	         /    \
//	   Cluster    Client ── own record of every acknowledgement
//	   │ fork       │ PUT /v1/data/KEY        (memory and client.jsonl)
//	   │ signals    │
//	   ▼            ▼
//	aiondb-ha serve × N      one directory, one log file, three ports each
//
// The three parts know little of each other. Cluster starts, kills, pauses and
// ends processes and leaves none behind, however its own process ends. Client
// writes as fast as it is told to, through any node, and keeps the only record
// that the verdict trusts: what was acknowledged, by which epoch, when. The
// verdict functions (Failover, LostWrites, DualPrimaryAcks, LongestGap) are
// plain functions over that record.
//
// Nothing here is imported by the library; the demo, the tests that need real
// processes and the torture stand on it.
package democluster
