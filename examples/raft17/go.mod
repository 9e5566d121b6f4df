module github.com/aiondb/aiondb-ha/examples/raft17

go 1.26

require (
	github.com/aiondb/aiondb-ha v0.0.0
	github.com/hashicorp/go-hclog v1.6.3
	github.com/hashicorp/raft v1.8.0
)

require (
	github.com/armon/go-metrics v0.4.1 // indirect
	github.com/fatih/color v1.13.0 // indirect
	github.com/hashicorp/go-immutable-radix v1.3.1 // indirect
	github.com/hashicorp/go-metrics v0.7.0 // indirect
	github.com/hashicorp/go-msgpack/v2 v2.1.5 // indirect
	github.com/hashicorp/golang-lru v1.0.2 // indirect
	github.com/mattn/go-colorable v0.1.12 // indirect
	github.com/mattn/go-isatty v0.0.14 // indirect
	golang.org/x/sys v0.47.0 // indirect
)

// The store of this very checkout is used.
replace github.com/aiondb/aiondb-ha => ../../

// The program stays on the 1.7 line of hashicorp/raft, whatever the store asks for.
replace (
	github.com/hashicorp/go-metrics => github.com/hashicorp/go-metrics v0.6.0
	github.com/hashicorp/raft => github.com/hashicorp/raft v1.7.3
)
