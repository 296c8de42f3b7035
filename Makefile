# SPDX-License-Identifier: Apache-2.0
#
# make help lists what there is. Tests that need root are in test/; all the
# rest runs as anybody.

SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -e -c
MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := help

# sudo drops the PATH that go is on.
GO       ?= $(shell command -v go || echo /usr/local/go/bin/go)
MODULE   := github.com/l2bridge/l2bridge
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
FUZZTIME ?= 8s
E2E      ?= .
PREFIX   ?= /usr/local
UNITDIR  ?= $(PREFIX)/lib/systemd/system

export PATH := $(dir $(GO)):$(PATH):/usr/sbin:/sbin

# What a TAP, a netlink socket or a namespace is part of is Linux only. The
# rest builds anywhere, and darwin holds it to that.
LINUX_ONLY := cmd/ internal/confine internal/tap internal/daemon test/ transport/udpconn
PORTABLE    = $(shell $(GO) list -f '{{if .GoFiles}}{{.ImportPath}}{{end}}' ./... | grep -v $(LINUX_ONLY:%=-e /%))

# Most of what test/ does at the same time is to wait.
SLEEPY := -parallel 4

TALLY := $(GO) run ./test/tally

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## bin/l2bridge
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w -X $(MODULE)/internal/control.version=$(VERSION)' -o bin/l2bridge ./cmd/l2bridge

.PHONY: test
test: root need vet cross ## everything there is to test; needs root, installs what it lacks on Debian
	{ $(GO) test -json -race -timeout 20m -shuffle=on $$($(GO) list ./... | grep -v /test$$) || true; \
	  $(GO) test -json -run 'Alloc|HundredPeers' $$($(GO) list ./... | grep -v /test) || true; \
	  $(GO) test -json -race -timeout 20m $(SLEEPY) ./test || true; \
	  test/fuzz.sh $(FUZZTIME) -json || true; } | $(TALLY)

.PHONY: check
check: vet ## what needs no root: format, vet, unit tests with the race detector
	$(GO) test -json -race -shuffle=on $$($(GO) list ./... | grep -v -e /test$$ -e /test/lab$$) | $(TALLY)

.PHONY: race
race: ## unit tests ten times over with the race detector, in another order each time
	$(GO) test -race -shuffle=on -count=10 $$($(GO) list ./... | grep -v -e /test$$ -e /test/lab$$)

.PHONY: soak
soak: ## a simulated day of ten sites in LIVES (24) lives, and every trouble and change of ways 60 times; over an hour; SEED=n
	$(GO) test -v -count=1 -timeout 12h -run 'TestTenSites|TestTroubles|TestHour|TestWaysChange' ./transport -seed $(or $(SEED),0) \
		-lives $(or $(LIVES),24) -life 1h -runs 60 | grep -v ' level='

.PHONY: e2e
e2e: root need ## end-to-end tests, as users run it, without the race detector; E2E=REGEXP picks some
	$(GO) test -v -count=1 -timeout 20m $(SLEEPY) -run '$(E2E)' ./test

.PHONY: faults
faults: root need ## how soon a link comes back, in dist/faults.md and .json; RUNS=20 FAULTS=REGEXP LOADS=idle,udp,tcp SIDE_BY_SIDE=3
	mkdir -p dist
	$(GO) test -v -count=1 -timeout 24h -parallel $(or $(SIDE_BY_SIDE),3) -run 'TestFaults/$(FAULTS)' ./test -faults.full \
		-faults.runs $(or $(RUNS),20) $(if $(LOADS),-faults.loads '$(LOADS)') \
		-faults.json $(CURDIR)/dist/faults.json -faults.markdown $(CURDIR)/dist/faults.md

.PHONY: attacks
attacks: root need ## floods and replays for a minute each, as hard as docs/security.md promises, measured; ATTACKS=REGEXP
	$(GO) test -v -count=1 -timeout 30m -run '$(or $(ATTACKS),TestFlood|TestReplay|TestRogue|TestMACFlood)' ./test -attacks.full

.PHONY: fuzz
fuzz: ## each fuzz target for FUZZTIME (8s)
	test/fuzz.sh $(FUZZTIME)

.PHONY: bench
bench: ## benchmarks
	$(GO) test -run='^$$' -bench=. -benchmem ./...

.PHONY: bench-peers
bench-peers: root $(if $(L2BRIDGE),,build) ## l2bridge beside other tunnels, in one run; PEERS=a,b WHAT=x,y ROUNDS=3 TIME=10s
	CGO_ENABLED=0 $(GO) build -trimpath -o dist/peers ./test/peers
	dist/peers $(if $(PEERS),-peers '$(PEERS)') $(if $(WHAT),-what '$(WHAT)') $(if $(ROUNDS),-rounds $(ROUNDS)) \
		$(if $(TIME),-time $(TIME)) -go $(GO) $(BENCHFLAGS)

.PHONY: profile
profile: root ## CPU and heap profiles of two gateways under load, with flame graphs, in dist/profile; TIME=5
	TIME='$(TIME)' VERSION='$(VERSION)' test/profile.sh

.PHONY: vet
vet: ## gofmt and go vet
	@bad=$$(gofmt -l .); \
	if [[ $$bad ]]; then echo "not formatted, make fmt mends it:"; echo "$$bad"; exit 1; fi
	$(GO) vet ./...
	$(GO) vet -tags man,profile ./cmd/l2bridge

.PHONY: lint
lint: vet ## vet and staticcheck; its first run builds it
	$(GO) tool -modfile=test/tools/go.mod staticcheck -checks=all ./...

.PHONY: audit
audit: build lint ## licences, a bill of materials (dist/sbom.json), known vulnerabilities, staticcheck
	test/audit.sh

.PHONY: fmt
fmt: ## format
	gofmt -s -w .

.PHONY: cross
cross: ## compile for linux/arm64, and what claims to be portable for darwin
	CGO_ENABLED=0 GOOS=linux GOARCH=arm64 $(GO) build ./...
	CGO_ENABLED=0 GOOS=darwin GOARCH=arm64 $(GO) build $(PORTABLE)

.PHONY: demo
demo: root build ## two sites on one LAN, inside this machine; KEEP=1 leaves them up
	@test/demo.sh up

.PHONY: demo-down
demo-down: root ## end what KEEP=1 left
	@test/demo.sh down

.PHONY: man
man: ## manual pages in dist/man
	mkdir -p dist/man
	$(GO) run -tags man ./cmd/l2bridge man dist/man

.PHONY: completions
completions: build ## shell completions in dist/completions
	mkdir -p dist/completions
	for shell in bash zsh fish; do bin/l2bridge completion $$shell >dist/completions/l2bridge.$$shell; done

.PHONY: install
install: build man completions ## into PREFIX (/usr/local), with units, pages and completions
	install -D -m 0755 -t $(DESTDIR)$(PREFIX)/bin bin/l2bridge
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/man/man1 dist/man/*.1
	install -D -m 0644 dist/completions/l2bridge.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/l2bridge
	install -D -m 0644 dist/completions/l2bridge.zsh $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_l2bridge
	install -D -m 0644 dist/completions/l2bridge.fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/l2bridge.fish
	install -d $(DESTDIR)$(UNITDIR)
	for unit in deploy/*.service; do \
		sed 's|^\(Exec[A-Za-z]*=[-+!:@]*\)/usr/bin/|\1$(PREFIX)/bin/|' $$unit >$(DESTDIR)$(UNITDIR)/$${unit##*/}; \
	done

.PHONY: clean
clean: ## remove what was built
	rm -rf bin dist

.PHONY: root
root:
	@[[ $$EUID -eq 0 ]] || { echo "this makes network namespaces and needs root: sudo make $(MAKECMDGOALS)" >&2; exit 1; }

.PHONY: need
need:
	@test/need.sh ip:iproute2 ping:iputils-ping iperf3:iperf3 dnsmasq:dnsmasq-base udhcpc:udhcpc radvd:radvd tcpdump:tcpdump nft:nftables gcc:gcc gcc:libc6-dev openssl:openssl miniupnpd:miniupnpd-nftables
