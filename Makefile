# make            build bin/receiver, bin/target, bin/libsender.so
# make demo       build, then show a process move from one receiver to another and on
# make test       install what the tests need, build, run every test
# make criu      install a criu that works here, for criu-bridge
# make bench      measure this machine, beside CRIU, into docs/benchmarks.md
# make lint       formatting, clippy, docs, house rules
# make install    PREFIX=/usr/local DESTDIR=

PREFIX  ?= /usr/local
DESTDIR ?=
CARGO   ?= cargo
PYTHON  ?= python3

# target/ is a crate here, so cargo's output goes to build/.
export CARGO_TARGET_DIR := $(CURDIR)/build

# The parasite is no_std: a cargo call of its own keeps its siblings' `std` features away from it.
PARASITE  := --profile parasite
# It lives in other people's programs, so size counts and speed does not: that of the packed whole. Code is copied to
# where it is called only if that makes the whole smaller. The costs are twelve times LLVM's own, so that its bonus for a function with one caller
# (15000) stops at small functions: large ones in one another's frames reach their variables by long instructions.
# Jump tables, aligned loops, and what is hoisted out of loops or loaded ahead, would cost more than they save.
SMALLER   := $(addprefix -Cllvm-args=-,inline-threshold=150 inline-instr-cost=60 inline-call-penalty=300 \
             min-jump-table-entries=1000 align-loops=1 disable-machine-licm enable-load-pre=false)
# No path of this machine is in it, so that it is as long wherever it is built.
NAMELESS  := --config "build.rustflags=['--remap-path-prefix=$${CARGO_HOME:-$$HOME/.cargo}/registry/src=']"
WORKSPACE := --workspace --exclude sender-lib --exclude sender-body --exclude sender-seam

.PHONY: all build rebuild clean test check demo bench criu lint install uninstall toolchain test-tools

all: build

build: toolchain
	$(CARGO) build --locked --release --package receiver --package target --package criu-bridge
	@mkdir -p bin
	$(CARGO) rustc --locked $(NAMELESS) --package sender-body $(PARASITE) -- $(SMALLER)
	POSTHASTE_BODY=$(CARGO_TARGET_DIR)/parasite/libbody.so $(CARGO) rustc --locked $(NAMELESS) --package sender-lib $(PARASITE) -- $(SMALLER)
	install -m 755 build/parasite/libsender.so bin/libsender.so
	strip --strip-all bin/libsender.so
	install -m 755 build/release/receiver build/release/target build/release/criu-bridge bin/

rebuild: clean build

clean:
	rm -rf build bin

# What building needs; installed from the distribution where it is missing.
toolchain:
	@sh tests/install-packages.sh build

# The programs that nobody here wrote and that the tests move, and criu.
test-tools:
	@sh tests/install-packages.sh test
	@sh criu-bridge/install-criu.sh || echo "no criu: the tests that need it are skipped" >&2

# A criu that works on this kernel, for criu-bridge.
criu:
	sh criu-bridge/install-criu.sh

# The tests have built the simulator; cargo run would build it once more, with other features.
test: test-tools build
	$(CARGO) test --locked --release $(WORKSPACE)
	$(CARGO_TARGET_DIR)/release/simulator --seeds 100000
	$(PYTHON) test.py --suite all --clean

check: test

demo: build
	$(PYTHON) tests/demo.py

bench: build criu
	$(CARGO) run --locked --release --package xtask -- bench --docs docs/benchmarks.md --json build/benchmarks.json

lint: toolchain
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked $(WORKSPACE) --all-targets -- -D warnings
	$(CARGO) clippy --locked --package sender-lib --package sender-body --package sender-seam $(PARASITE) -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items $(WORKSPACE)
	$(CARGO) run --locked --package xtask -- tidy

install: build
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib
	install -m 755 bin/receiver bin/target bin/criu-bridge $(DESTDIR)$(PREFIX)/bin/
	install -m 755 bin/libsender.so $(DESTDIR)$(PREFIX)/lib/
	@if [ -z "$(DESTDIR)" ]; then sh tests/refresh-linker-cache.sh $(PREFIX)/lib; fi

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/receiver $(DESTDIR)$(PREFIX)/bin/target $(DESTDIR)$(PREFIX)/bin/criu-bridge
	rm -f $(DESTDIR)$(PREFIX)/lib/libsender.so
