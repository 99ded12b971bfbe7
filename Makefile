# Vitrine: `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
GOFLAGS_BUILD := -trimpath -ldflags "-s -w -X main.version=$(VERSION)"
TOOLS := $(CURDIR)/.tools
PKGS := ./...
LOG := $(CURDIR)/bin/test.log
export CGO_ENABLED := 0
# The demo's load reads a DURATION of its own from the environment.
unexport DURATION

.PHONY: help
help: ## list the targets
	@awk -F':.*## ' '/^[a-z][a-z-]*:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: prereqs
prereqs:
	@command -v go >/dev/null || { echo "Go is missing. Install Go 1.26 or newer: apt-get install golang, or from go.dev/dl"; exit 1; }
	@go version | awk '{split(substr($$3,3),v,"."); if (v[1]<1 || (v[1]==1 && v[2]<26)) {print "Go " substr($$3,3) " is too old: install Go 1.26 or newer from go.dev/dl"; exit 1}}'
	@[ "$$(uname -s)" = Linux ] || { echo "Vitrine needs Linux: its glass cases are network namespaces"; exit 1; }
	@command -v node >/dev/null || echo "note: node is missing, its programs are left out of the demo (apt-get install nodejs)"
	@command -v python3 >/dev/null || echo "note: python3 is missing, its programs are left out of the demo (apt-get install python3)"

.PHONY: build
build: prereqs ## build bin/vitrine, bin/vitrine-proxy and the demo's programs
	@echo "building (the first build compiles the embedded Prometheus: some minutes on a small machine)"
	@go build $(GOFLAGS_BUILD) -o bin/ ./cmd/vitrine ./cmd/vitrine-proxy
	@mkdir -p bin/demo && go build $(GOFLAGS_BUILD) -o bin/demo/ ./demo/...
	@echo "built bin/vitrine and bin/vitrine-proxy"

.PHONY: demo
demo: build ## run the demo shop until Ctrl-C (DURATION=60s ends by itself)
	@bin/vitrine demo $(if $(DURATION),--duration $(DURATION))

# One package at a time: the end-to-end packages start whole meshes and load. Never from the
# cache, which does not know that tests build and run programs of ours.
define run_tests
@mkdir -p $(dir $(LOG)); go test -p 1 -count=1 -v -timeout 25m $(PKGS) > $(LOG) 2>&1 && code=0 || code=$$?; \
grep -E '^(ok|FAIL|panic:|--- FAIL|[[:space:]]+--- FAIL)' $(LOG) || true; \
if [ $$code -ne 0 ]; then echo "----- failing output (whole log: $(LOG))"; awk '/^=== RUN/{buf=""} {buf=buf $$0 "\n"} /^[[:space:]]*--- FAIL/{printf "%s", buf; buf=""} /^(FAIL|panic:)/{print}' $(LOG) | tail -n 200; exit $$code; fi; \
if grep -E '^[[:space:]]*--- SKIP' $(LOG); then echo "a test was skipped: it would read as passed, so this run failed"; exit 1; fi; \
echo "$$(grep -cE '^[[:space:]]*--- PASS' $(LOG)) passed, 0 failed"
endef

.PHONY: test
test: prereqs build ## run every test; namespace tests run for real, a skipped test is a failure
	$(run_tests)

.PHONY: shake
shake: export GOFLAGS := -overlay=$(CURDIR)/.shake/overlay.json
shake: prereqs ## every test with pauses after system calls and a random scheduler: finds what passes by luck
	@GOFLAGS= go run ./test/shake -dir .shake >/dev/null
	$(run_tests)

.PHONY: check
check: prereqs $(TOOLS)/staticcheck ## the inner loop: format, vet, staticcheck, layers, linked dependencies
	@out=$$($(TOOLS)/gofumpt -l $$(git ls-files -co --exclude-standard '*.go' | grep -v '\.pb\.go$$')); [ -z "$$out" ] || { echo "not formatted (run: make format):"; echo "$$out"; exit 1; }
	@go vet $(PKGS)
	@$(TOOLS)/staticcheck -checks all,-ST1000,-ST1003 $(PKGS)
	@go test -count=1 .
	@$(MAKE) --no-print-directory linked

# What would cost each proxy megabytes (docs/adr/0002), and the parts of ours that use it.
NOT_IN_PROXY := github.com/prometheus/|k8s.io/|sigs.k8s.io/|google.golang.org/grpc|google.golang.org/genproto|github.com/envoyproxy/|github.com/vitrine-mesh/vitrine/internal/(console|metricstore|daemon|manifest|kube|graph|xds/ads)

.PHONY: linked
linked: # an uncached check of what vitrine-proxy links
	@deps=$$(go list -deps ./cmd/vitrine-proxy); bad=$$(grep -E '^($(NOT_IN_PROXY))' <<<"$$deps" || true); \
	[ -z "$$bad" ] || { echo "vitrine-proxy must not link:"; echo "$$bad"; exit 1; }

.PHONY: format
format: $(TOOLS)/staticcheck ## rewrite the Go files in the project's format
	@$(TOOLS)/gofumpt -w $$(git ls-files -co --exclude-standard '*.go' | grep -v '\.pb\.go$$')

.PHONY: lint
lint: $(TOOLS)/staticcheck ## the strict linter set
	@$(TOOLS)/golangci-lint run $(PKGS)

.PHONY: race
race: build ## every test under the race detector (needs a C compiler)
	@CGO_ENABLED=1 go test -p 1 -race -timeout 40m $(PKGS)

FUZZTIME ?= 20s
.PHONY: fuzz-short
fuzz-short: ## each fuzz target for FUZZTIME (20s)
	@grep -rl '^func Fuzz' --include='*_test.go' internal | xargs -n1 dirname | sort -u | while read -r dir; do \
	  go test -list '^Fuzz' ./$$dir | grep '^Fuzz' | while read -r name; do echo "$$dir $$name"; go test -run '^$$' -fuzz "^$$name$$" -fuzztime $(FUZZTIME) ./$$dir; done; done

.PHONY: bench
bench: build ## the speed of one proxy hop beside haproxy, nginx, Envoy and net/http
	@bash test/bench/run.sh

.PHONY: pgo
pgo: prereqs ## the profile that vitrine-proxy is compiled with, anew from the loads of bench
	@bash test/bench/run.sh -profile cmd/vitrine-proxy/default.pgo

.PHONY: interop
interop: build ## real Envoy, Prometheus, promtool, Kiali's and Grafana's code against a running mesh (installs them)
	@bash test/interop/peers.sh
	@go test -tags interop -count=1 -timeout 10m ./test/interop/

$(TOOLS)/staticcheck: tools/go.mod tools/go.sum
	@echo "building the pinned tools into .tools (once)"
	@cd tools && GOBIN=$(TOOLS) go install -trimpath github.com/golangci/golangci-lint/v2/cmd/golangci-lint honnef.co/go/tools/cmd/staticcheck mvdan.cc/gofumpt
	@touch $@

.PHONY: clean
clean: ## remove what the targets made
	@rm -rf bin .tools .shake dist
