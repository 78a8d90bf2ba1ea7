# Every target does all of its own set-up: a Go toolchain and, for the race
# detector, a C compiler are all that must be there. Where no PostgreSQL is
# installed, one is fetched (internal/pgtest says how it is found).

GO          ?= go
# More flags for go test, such as TESTFLAGS='-run TestWithTx -v'.
TESTFLAGS   ?=
# The PostgreSQL major versions of test-matrix.
PG_VERSIONS ?= 15 16 17 18
# How long soak runs.
SOAK        ?= 10m
# How often chaos runs each situation with each client.
CHAOS       ?= 5
# Flags of contention, such as CONTENTIONFLAGS='-rounds 1 -turn 500ms' for a short run.
CONTENTIONFLAGS ?=
# Seconds that all fuzz functions share.
FUZZTIME    ?= 60

# The library of the compose client, for machines without one.
COMPOSE_GO  = v2.9.1

TEST = GO='$(GO)' sh tools/gotest
BIN  = .cache/bin

# The directories of all modules in go.work.
MODULES = $$($(GO) list -m -f '{{.Dir}}')

.PHONY: help demo test test-short test-allocs test-eager test-docker test-pgbouncer test-report test-net test-ha test-observability dashboard-preview test-matrix soak chaos bench contention bench-commit fuzz lint fmt generate generate-check cross compose-check \
	cover tidy clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-16s%s\n", $$1, $$2 }' Makefile

demo: ## the same load through plain pgx and through retrypg while a server fails
	@mkdir -p .cache
	@$(GO) run ./cmd/retrypg demo --report .cache/retrypg-demo.html

# -count=1: the test cache does not see the server that a result depends on.
test: ## all tests of all modules, race detector on, against a real PostgreSQL
	@$(TEST) -race -count=1 -timeout 15m $(TESTFLAGS) work

test-short: ## the tests that need no server
	@$(TEST) -short $(TESTFLAGS) work

test-allocs: ## the tests of what allocates nothing once more, without the race detector, which allocates itself
	@$(TEST) -count=1 -run Alloc $(TESTFLAGS) ./... ./integration/connect ./integration/cost

# The linker changes the default of retry_lazy_begin.
test-eager: ## the tests of transactions and connections once more, with retry_lazy_begin=off
	@$(TEST) -race -count=1 -timeout 15m -ldflags '-X github.com/retrypg/retrypg.lazyBeginDefault=off' $(TESTFLAGS) \
		. ./integration/commit/... ./integration/connect/... ./integration/driver/... ./integration/tx/...

test-docker: ## the container tests; sets up an engine and an image where there are none
	@mkdir -p $(BIN)
	@$(GO) build -o $(BIN)/docker-engine ./integration/docker/engine
	@GO='$(GO)' $(BIN)/docker-engine sh tools/gotest -tags docker -race -count=1 -timeout 8m $(TESTFLAGS) ./integration/docker/...

test-pgbouncer: ## commits through a real PgBouncer, which must be installed
	@$(TEST) -tags pgbouncer -race -count=1 -timeout 5m $(TESTFLAGS) ./integration/pgbouncer/...

test-report: ## the demo's HTML report in a headless Chromium, which must be installed
	@$(TEST) -tags chromium -race -count=1 -timeout 5m $(TESTFLAGS) ./cmd/retrypg/internal/htmlreport/...

test-net: ## a network that fails between program and server; needs root on Linux, iproute2 and iptables
	@$(TEST) -tags netns -race -count=1 -timeout 5m $(TESTFLAGS) ./integration/net/...

# -v: the table of how long each way was without a success is the point of it.
test-ha: ## failovers of a Patroni cluster, with etcd, HAProxy and PgBouncer, which must be installed (Linux)
	@$(TEST) -tags ha -race -count=1 -v -timeout 15m $(TESTFLAGS) ./integration/ha/...

# The collector is the same code that the image in docker-compose.yml holds.
test-observability: $(BIN)/collector ## dashboard and alerts against a real collector and Prometheus, which must be installed
	@$(GO) build -o $(BIN)/retrypg ./cmd/retrypg
	@$(TEST) -tags observability -race -count=1 -v -timeout 8m $(TESTFLAGS) ./integration/observability/...

dashboard-preview: $(BIN)/collector ## docs/dashboard.png: what the dashboard shows of some minutes under load; needs Prometheus and Chromium
	@$(GO) build -o $(BIN)/retrypg ./cmd/retrypg
	@cd integration && $(GO) test -tags observability -count=1 -v -timeout 8m -run TestThePreview $(TESTFLAGS) ./observability \
		-observability.preview='$(CURDIR)/docs/dashboard.png'

# A module outside go.work, for the same reason as tools.
COLLECTOR = integration/observability/collector
$(BIN)/collector: $(COLLECTOR)/main.go $(COLLECTOR)/go.mod $(COLLECTOR)/go.sum
	@echo "building the OpenTelemetry collector; the first time takes minutes"
	@mkdir -p $(BIN)
	@cd $(COLLECTOR) && GOWORK=off $(GO) build -trimpath -ldflags='-s -w' -o ../../../$(BIN)/collector .

test-matrix: ## make test with each supported PostgreSQL
	@for version in $(PG_VERSIONS); do \
		echo "PostgreSQL $$version"; \
		RETRYPG_PG_VERSION=$$version $(TEST) -race -count=1 -timeout 15m $(TESTFLAGS) work || exit; \
	done

soak: ## random faults under load for SOAK, both commit checks; -soak.seed=N in TESTFLAGS repeats a run
	@cd integration && $(GO) test -race -count=1 -v -timeout 0 $(TESTFLAGS) ./soak -soak.for=$(SOAK)

# Without the race detector, which would be measured too.
chaos: ## how soon callers are served after each kind of outage, and what they are told: CHAOS runs, next to plain pgx
	@cd integration && $(GO) test -count=1 -v -timeout 0 -run TestChaos $(TESTFLAGS) ./reach -chaos.runs=$(CHAOS)

bench: ## side by side with the libraries that do the same, written to docs/benchmarks.md
	@cd bench && $(GO) run . -o ../docs/benchmarks.md

contention: ## transactions that are in each other's way, written to docs/contention.md and docs/contention.svg
	@cd bench && $(GO) run ./contention -o ../docs/contention.md -plot ../docs/contention.svg $(CONTENTIONFLAGS)

bench-commit: ## what a transaction or a statement costs more than through pgx alone, as ratios of one run
	@cd integration && $(GO) test -run '^$$' -bench . -benchtime 10000x ./cost

fuzz: ## all fuzz functions, for FUZZTIME seconds in all
	@GO='$(GO)' sh tools/fuzz $(FUZZTIME)

lint: $(BIN)/golangci-lint ## format, vet, staticcheck and the rest of .golangci.yml
	@bin="$$PWD/$(BIN)/golangci-lint"; status=0; unformatted=$$($(BIN)/gofumpt -l .); \
		if [ -n "$$unformatted" ]; then echo "not formatted (make fmt does it):"; echo "$$unformatted"; status=1; fi; \
		for module in $(MODULES); do echo "$$module"; (cd "$$module" && "$$bin" run ./...) || status=1; done; exit $$status

fmt: $(BIN)/golangci-lint ## format all Go files
	@bin="$$PWD/$(BIN)/golangci-lint"; \
		for module in $(MODULES); do (cd "$$module" && "$$bin" fmt ./...) || exit; done

# The tools are a module outside go.work, so that none of their dependencies
# takes part in the choice of the library's versions.
$(BIN)/golangci-lint: tools/go.mod tools/go.sum
	@echo "building golangci-lint and gofumpt; the first time takes minutes"
	@mkdir -p $(BIN)
	@cd tools && GOWORK=off $(GO) build -o ../$(BIN)/ tool
	@touch $@

generate: ## write the generated files anew
	@for module in $(MODULES); do (cd "$$module" && $(GO) generate ./...) || exit; done

# Compared with the tree as it was, not with a commit: it works in a dirty tree.
generate-check: ## fail if a generated file is not up to date
	@mkdir -p .cache
	@sum() { find . -type f ! -path './.git/*' ! -path './.cache/*' -exec cksum {} + | sort -k 3; }; \
		sum >.cache/before.sum; $(MAKE) generate || exit; sum >.cache/after.sum; \
		diff .cache/before.sum .cache/after.sum || { echo "generated files were not up to date"; exit 1; }

# GOWORK=off: go.work raises the library's dependencies to what its nested
# modules need; a user gets those of go.mod. The tests of internal/pgtest use
# Unix signals: for Windows the packages count, not their tests.
cross: ## compile the library outside go.work, and for other systems
	@echo "go build outside go.work"; GOWORK=off $(GO) build ./...
	@for system in darwin freebsd; do \
		echo "go vet for $$system"; GOWORK=off GOOS=$$system CGO_ENABLED=0 $(GO) vet ./... || exit; \
	done
	@echo "go build for windows"; GOWORK=off GOOS=windows CGO_ENABLED=0 $(GO) build ./...

# Where there is no compose client, the library that it reads its files with.
compose-check: ## check docker-compose.yml
	@if docker compose version >/dev/null 2>&1; then docker compose config --quiet; \
		else GOWORK=off GOFLAGS=-mod=mod $(GO) run github.com/compose-spec/compose-go/v2/cmd@$(COMPOSE_GO) docker-compose.yml >/dev/null; fi

cover: ## statement coverage of the library by all tests
	@mkdir -p .cache
	@$(TEST) -count=1 -coverpkg=github.com/retrypg/retrypg/... -coverprofile=.cache/cover.out $(TESTFLAGS) work
	@$(GO) tool cover -html=.cache/cover.out -o .cache/cover.html
	@$(GO) tool cover -func=.cache/cover.out | tail -n 1

tidy: ## go mod tidy in every module
	@GO='$(GO)' sh tools/tidy

clean: ## remove what the targets made in this tree
	@rm -rf .cache
