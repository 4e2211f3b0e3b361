# NovaCron: `make help` lists what there is to do.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

# scripts/setup unpacks a Go here when the machine has none that is new enough.
ifneq ($(wildcard .cache/go/bin/go),)
export PATH := $(CURDIR)/.cache/go/bin:$(PATH)
export GOTOOLCHAIN := local
endif

TOOL := go tool -modfile=tools/go.mod
# These need no C; built without it they work on any machine.
LINT := CGO_ENABLED=0 $(TOOL) golangci-lint
GOFUMPT := CGO_ENABLED=0 $(TOOL) gofumpt
GO_FILES = $$(git ls-files --cached --others --exclude-standard -- '*.go')
SHELL_FILES := e2e/debian-guest scripts/cover scripts/fuzz scripts/upgrade-test scripts/fresh-machine-test scripts/fresh-root scripts/install-test scripts/setup scripts/up scripts/guest-image scripts/uefi-guest scripts/qemu-next scripts/env.sh .ci/run

.PHONY: qemu-next versions-test moves proofs chaos chaos-slice upgrade-test debian-test fresh-machine-test install-test fleet help setup gen fmt lint test race e2e bench bench-parts fuzz up down clean cover vuln build guest guests

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-20s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what is missing on this machine (Debian, Ubuntu)
	@scripts/setup

build: ## Build bin/novacron
	CGO_ENABLED=0 go build -trimpath -o bin/novacron ./cmd/novacron

up: ## Run NovaCron on this machine with a first virtual machine
	@scripts/setup
	@$(MAKE) --no-print-directory build guest
	@scripts/up

down: ## Stop what `make up` started, guests gracefully
	@if [[ -x bin/novacron ]]; then bin/novacron down || echo 'make down: nothing was stopped'; fi

clean: down ## Stop it and remove its data, the binary and the test guest
	@if [[ -x bin/novacron ]]; then bin/novacron clean --yes; fi
	rm -rf bin dist cover.out cover.html .cache/guest

test: guests ## Run every test, with a real database and real QEMU
	source scripts/env.sh && go test -timeout 14m ./...

race: guests ## Run the tests under the race detector, but for e2e, which builds the program without it
	CGO_ENABLED=1 go test -race -short -timeout 28m $$(go list ./... | grep -v '/e2e\(/chaos\)\?$$')

e2e: guests ## Run the tests of the whole system, uncached
	go test -count=1 -timeout 14m ./e2e/...

fleet: guest ## 200 simulated nodes, 2,000 VMs, a server killed every few seconds (10 minutes)
	NOVACRON_E2E_FLEET=200,2000 go test -count=1 -v -timeout 30m -run TestFleetUnderFire ./e2e

debian-test: ## Boot a full Debian guest that cloud-init sets up (root, debootstrap; 5 minutes)
	NOVACRON_E2E_DEBIAN=yes go test -count=1 -v -timeout 30m -run TestDebianGuest ./e2e

moves: guests ## A guest that writes, holds a connection and answers pings goes around three nodes a hundred times (root, 10 minutes)
	NOVACRON_CHAOS_MOVES=100 go test -count=1 -v -timeout 30m -run TestGoesAround ./e2e/chaos

proofs: guests ## Prove the flows that real guests have part in on real QEMU, each step failed, repeated, killed and cancelled (root, 10 minutes)
	NOVACRON_PROOFS=qemu go test -count=1 -timeout 20m -run TestProofs ./internal/control/flows

chaos: guests ## Break migrations of a real guest at each point in each way: the matrix three times, 200 cases at random, planted mistakes (root, an hour)
	NOVACRON_CHAOS_ROUNDS=3 NOVACRON_CHAOS_RANDOM=200 NOVACRON_CHAOS_SEED=$$(date +%s) go test -count=1 -v -timeout 80m -run 'TestMigrationsUnderFire|TestPlantedMistakesAreFound' ./e2e/chaos

chaos-slice: guests ## As much of that as fits into 8 minutes, always the same
	NOVACRON_CHAOS_ROUNDS=1 NOVACRON_CHAOS_RANDOM=0 NOVACRON_CHAOS_MINUTES=6 go test -count=1 -v -timeout 14m -run 'TestMigrationsUnderFire|TestPlantedMistakesAreFound' ./e2e/chaos

qemu-next: ## Unpack the QEMU of Debian's backports, beside the installed one, to .cache/qemu-next
	@scripts/qemu-next

versions-test: guest qemu-next ## Move guests between the installed QEMU and that of Debian's backports (root, 3 minutes)
	NOVACRON_TEST_QEMU=$(CURDIR)/.cache/qemu-next/usr/bin/qemu-system-x86_64 go test -count=5 -v -timeout 10m \
	    -run 'TestMemoryIsTheSameOnBothHosts|TestFirmwareBesideQEMU|TestArrivedIsSuspended' ./internal/driver/hypervisor/qemu
	go test -count=1 -v -timeout 10m -run TestTwoVersionsOfQEMU ./e2e/chaos

install-test: build guest ## Install it as a service in a machine of its own with a real systemd (root, 3 minutes)
	@scripts/install-test

upgrade-test: guest ## Meet the data, the agent and a running guest of the release before this one (3 minutes)
	@scripts/upgrade-test

fresh-machine-test: ## Run make up and make test in a fresh Debian root (root, 20 minutes)
	@scripts/fresh-machine-test

bench: guest ## Measure the product against its goals: a table, and dist/bench.json (15 minutes of a quiet machine)
	NOVACRON_BENCH_OUT=$(CURDIR)/dist/bench.json go test -run '^$$' -bench . -benchtime 1x -timeout 50m ./e2e

bench-parts: guest ## Run the benchmarks of single packages and print one table
	@go test -run '^$$' -bench . -benchmem -timeout 14m ./internal/... | awk ' \
	    /^pkg:/ { pkg = $$2; sub(/^github.com\/novacron\/novacron\//, "", pkg) } \
	    /^Benchmark/ { sub(/^Benchmark/, "", $$1); out = sprintf("%-28s %-44s", pkg, $$1); \
	        for (i = 3; i < NF; i += 2) out = out sprintf(" %12s %-9s", $$i, $$(i+1)); print out } \
	    /^(FAIL|---|panic)/ { print; bad = 1 } END { exit bad }'

cover: guests ## Run every test and show what it covers, the programs of the e2e tests included, in cover.html
	@scripts/cover

fuzz: ## Run every fuzz target for FUZZTIME (30s)
	@scripts/fuzz

gen: ## Generate what is generated: queries, and whatever go:generate names
	$(TOOL) sqlc generate
	go generate ./...
	go test ./internal/cli -run '^TestReference$$' -update >/dev/null

fmt: ## Format the Go sources
	$(GOFUMPT) -w $(GO_FILES)

lint: ## Check formatting, Go sources and shell scripts
	$(LINT) run --allow-parallel-runners ./...
	@if command -v shellcheck >/dev/null; then \
	    shellcheck -x $(SHELL_FILES) && shellcheck -s sh scripts/guest/{init,rc,udhcpc,poweroff}; \
	else echo 'make lint: shellcheck is not installed, the scripts were not read'; fi

vuln: ## Look for known vulnerabilities in what we import
	@.ci/vuln

# Whatever comes first on a fresh checkout installs what is missing.
guest:
	@compgen -G '.cache/guest-kernel/boot/vmlinuz-*' >/dev/null || scripts/setup
	@scripts/guest-image

# What tests boot besides.
guests: guest
	@[[ -x .cache/guest-agent/usr/sbin/qemu-ga ]] || scripts/setup
	@scripts/uefi-guest
