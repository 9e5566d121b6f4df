# aiondb-ha: what a person or a machine runs here. Needs Go, git and make.

GO      ?= go
BIN     := bin/aiondb-ha
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -X main.version=$(VERSION)
TESTFLAGS ?=
IMAGES  ?= 100000

# Modules of their own, because they need other versions than the main one:
# the stores of other projects, and programs that use them.
NESTED  := bench examples/kv examples/raft17
nested   = @for m in $(NESTED); do echo "cd $$m && $(1)"; (cd $$m && $(1)) || exit 1; done

.DEFAULT_GOAL := help

.PHONY: help
help: ## show what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build the aiondb-ha binary into bin/
	@mkdir -p bin
	$(GO) build -trimpath -ldflags "$(LDFLAGS)" -o $(BIN) ./cmd/aiondb-ha

.PHONY: demo
demo: build ## start three real nodes, kill the primary, watch another take over
	@$(BIN) demo

.PHONY: test
test: ## run every test under the race detector
	@command -v cc >/dev/null || { echo "the race detector needs a C compiler: install gcc or clang" >&2; exit 1; }
	$(GO) test -race $(TESTFLAGS) ./...
	$(GO) test -timeout 30m -v -run 'TestFailovers|TestMutants|TestDefences' ./internal/sim $(TESTFLAGS) -sim.failovers=10000
	@$(MAKE) --no-print-directory crash-images
	$(call nested,$(GO) test $(TESTFLAGS) ./...)

.PHONY: sim-day
sim-day: ## simulate 24 hours of five nodes and mixed faults, some ten minutes
	$(GO) test -count=1 -timeout 3h -v -run TestDay ./internal/sim $(TESTFLAGS) -sim.day=24h

.PHONY: crash-images
crash-images: ## open the store from 100,000 crash images (IMAGES=n: as many as that)
	CRASH_IMAGES=$(IMAGES) $(GO) test -count=1 -timeout 60m -v -run '^TestCrash' ./jsonlstore

.PHONY: check
check: format vet lint tidy test ## everything a change must pass: format, vet, lint, tidy, test

.PHONY: format
format: ## fail if a file is not formatted
	@out=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "not formatted, run gofmt -w on:"; echo "$$out"; exit 1; fi

.PHONY: vet
vet: ## go vet
	$(GO) vet ./...
	$(call nested,$(GO) vet ./...)

.PHONY: lint
lint: ## golangci-lint with gosec and staticcheck, pinned in tools/go.mod; the first time it is built, in minutes
	$(GO) tool -modfile=tools/go.mod golangci-lint run ./...
	$(call nested,$(GO) tool -modfile=$(CURDIR)/tools/go.mod golangci-lint run --config $(CURDIR)/.golangci.yml ./...)

.PHONY: tidy
tidy: ## fail if go.mod or go.sum is not tidy
	$(GO) mod tidy -diff
	$(call nested,$(GO) mod tidy -diff)

MINUTES ?= 1
PROFILE ?=
TRIALS  = $(BIN) torture --minutes 60 --target primary --profile "$(PROFILE)"

.PHONY: torture
torture: build ## real nodes under every fault, MINUTES=1, with a verdict and a picture
	@$(BIN) torture --minutes $(MINUTES) --report bin/torture.html

.PHONY: failover-times
failover-times: build ## what 50 kills, 50 switchovers and 50 clean ends of the primary cost
	@$(TRIALS) --faults kill --steps 50
	@$(TRIALS) --faults switchover --steps 50
	@$(TRIALS) --faults terminate --steps 50

.PHONY: pause-trials
pause-trials: build ## the primary stopped 100 times for 0.1 to 20 s: does it speak when it must not?
	@$(TRIALS) --faults pause --steps 100

.PHONY: flap-test
flap-test: build ## ten minutes with two busy processes a core: a change of the primary is a failure
	@$(BIN) torture --faults calm --minutes 10 --busy $$(( 2 * $$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN) ))

.PHONY: flood
flood: ## 10,000 hostile connections during write load; fails if the p99 of writes more than doubles
	AIONDB_E2E_FLOOD=1 $(GO) test -count=1 -run 'TestFlood$$' -v ./internal/e2e

FUZZTIME ?= 1m

.PHONY: fuzz
fuzz: ## run every fuzz target for a minute, one after the other (FUZZTIME=10m: longer)
	@for dir in $$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n 1 dirname | sort -u); do \
		targets=$$(cd $$dir && $(GO) test -list '^Fuzz' .) || { echo "$$targets"; exit 1; }; \
		for target in $$(echo "$$targets" | grep '^Fuzz'); do \
			out=$$(cd $$dir && $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x . 2>&1) || \
				{ printf '%-24s %-24s FOUND SOMETHING\n%s\n' "$$dir" "$$target" "$$out"; exit 1; }; \
			printf '%-24s %-24s %s\n' "$$dir" "$$target" "$$(echo "$$out" | grep -o 'execs: [0-9]*' | tail -1)"; \
		done; \
	done

.PHONY: bench
bench: ## measure the store beside raft-wal and raft-boltdb, about a minute
	cd bench && $(GO) run . -quick

.PHONY: bench-full
bench-full: ## the same with a million entries; writes docs/benchmarks.md
	cd bench && $(GO) run . -full -markdown > ../docs/benchmarks.md.tmp
	mv docs/benchmarks.md.tmp docs/benchmarks.md

.PHONY: bench-code
bench-code: ## the benchmarks inside the packages
	$(GO) test -run '^$$' -bench . -benchmem ./...

.PHONY: clean
clean: ## remove what was built
	rm -rf bin dist
