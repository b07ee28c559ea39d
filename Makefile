# make          build ./dcelock, a static binary
# make demo     build it and show it at work
# make test     build it and run every test and smoke
# make peers    build it and compare it with flock(1) and others that are there
# make hosts    build it and try it on several hosts with one archive root, as root, in some minutes
# make bench    measure it beside flock(1) and bash, in some minutes (ROUNDS=300, PART=run)
# make fuzz     fuzz every parser for FUZZTIME (30s each)
# make torture  run the torture test for some minutes; ROUNDS=N for longer, SEED=N to repeat one
# make lint     gofmt, go vet, staticcheck, shellcheck
# make check    lint, and test with the race detector
# make install  install it below PREFIX (and DESTDIR); make uninstall removes it
# make clean    remove the binary
# make help     list these

PREFIX ?= /usr/local
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
# A checkout that belongs to somebody else is built with its version as well.
export GIT_CONFIG_COUNT = 1
export GIT_CONFIG_KEY_0 = safe.directory
export GIT_CONFIG_VALUE_0 = *
SOURCES = go.mod go.sum main.go $(wildcard lock/*.go meta/*)
SCRIPTS = .ci/run $(wildcard tests/*.sh)

# $(call need,TOOL,HOW TO GET IT)
need = @command -v $(1) >/dev/null || { echo 'make $@ needs $(1); get it with: $(2)' >&2; exit 1; }
need_go = $(call need,go,your package manager or go.dev/dl (1.26 or later))
need_jq = $(call need,jq,apt-get install jq)
need_cc = $(call need,gcc,apt-get install gcc libc6-dev (the race detector is linked by it))

dcelock: $(SOURCES)
	$(need_go)
	CGO_ENABLED=0 go build -buildvcs=auto -trimpath -ldflags '-s -w' -o $@ .

.PHONY: help
help:
	@sed -n 's/^# make/make/p' Makefile

.PHONY: uninstall
uninstall:
	rm -f '$(DESTDIR)$(PREFIX)/bin/dcelock'

.PHONY: demo
demo: dcelock
	@tests/demo.sh

.PHONY: test
test: dcelock
	go test -count=1 -timeout 1h ./...
	tests/run-all-smokes.sh

.PHONY: peers
peers: dcelock
	@tests/peers.sh

.PHONY: hosts
hosts: dcelock
	@tests/hosts.sh $(ENGINES)

FUZZTIME ?= 30s
.PHONY: fuzz
fuzz:
	$(need_go)
	@for package in ./meta ./lock ./tests; do \
	  for fuzz in $$(go test -list '^Fuzz' $$package | grep ^Fuzz); do \
	    go test -run '^$$' -fuzz "^$$fuzz\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 5s $$package || exit; \
	  done; \
	done

.PHONY: torture
torture: ROUNDS ?= 8
torture: dcelock
	ROUNDS='$(ROUNDS)' SEED='$(SEED)' go test -count=1 -timeout 0 -v -run '^TestTorture' ./tests

.PHONY: lint
lint:
	$(need_go)
	$(call need,shellcheck,apt-get install shellcheck)
	@unformatted=$$(gofmt -l .); [ -z "$$unformatted" ] || { echo "gofmt would change: $$unformatted" >&2; exit 1; }
	go vet ./...
	go run $(STATICCHECK) ./...
	shellcheck $(SCRIPTS)

# Under the race detector run the tests in which dcelock does two things at once.
.PHONY: check
check: lint dcelock
	$(need_cc)
	$(need_jq)
	CGO_ENABLED=1 go test -count=1 -timeout 1h -race ./lock ./meta
	CGO_ENABLED=1 go test -count=1 -timeout 1h -race -short -run 'Signal|Wait|Interrupt|Killed|Status' ./tests
	go test -count=1 -timeout 1h ./tests
	tests/run-all-smokes.sh
	tests/peers.sh --check

.PHONY: bench
bench: dcelock
	$(need_jq)
	@work=$$(mktemp -d) && trap 'rm -rf "$$work"' EXIT && trap 'exit 1' INT TERM && install dcelock "$$work" && cd tests && \
	TMPDIR=$$work BENCH="$$work/dcelock" ROUNDS='$(ROUNDS)' PART='$(PART)' go test -count=1 -timeout=1h -run '^TestBench$$'

.PHONY: install
install: dcelock
	install -D -m 755 dcelock '$(DESTDIR)$(PREFIX)/bin/dcelock'

.PHONY: clean
clean:
	rm -f dcelock
