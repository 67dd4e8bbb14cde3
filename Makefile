# `make help` lists the targets. `make test` is exactly what CI runs.

CARGO ?= cargo
PYTHON ?= python3
TARGET := $(or $(CARGO_TARGET_DIR),target)
LARDER := $(TARGET)/release/larder
# Where `make tools` puts what the tests drive, cargo-deny among it; one that is on the PATH is as good.
TOOLS := $(or $(LARDER_TEST_TOOLS),target/e2e-tools)
DENY := $(or $(shell command -v cargo-deny),$(TOOLS)/bin/cargo-deny)
# A snapshot that differs fails; it is rewritten by hand, with INSTA_UPDATE=always.
export INSTA_UPDATE ?= no

.DEFAULT_GOAL := help
.PHONY: help run check test compiled e2e stress bench fmt lint audit fuzz build release package tools

help: ## this list
	@grep -hE '^[a-z0-9]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /|/' | while IFS='|' read -r name text; do printf '  %-9s %s\n' "$$name" "$$text"; done

run: ## start larder with its built-in repositories on 127.0.0.1:8000
	$(CARGO) run --release --locked

check: lint ## format, lints and unit tests: what to run before each commit
	$(CARGO) test --workspace --locked --lib --bins

lint: ## format and lints only; nothing is changed
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

# What is quick to say no comes first. Clippy checks what the tests then compile: build scripts and what they build of C are
# shared between the two, for both are of one profile. Tools come over the network while compilers compute; tests wait most of the time, and
# leave that to the release build, which gives way to them.
test: ## everything that CI runs: format, lints, dependencies, all tests, then real clients against a release build
	tests/beside.sh "$(MAKE) tools audit" "$(MAKE) lint compiled"
	$(PYTHON) tests/bench/model.py --check
	tests/beside.sh "chrt --idle 0 $(CARGO) build --release --locked" "$(PYTHON) tests/cargo_test.py $(CARGO) --workspace --locked"
	$(PYTHON) tests/e2e/run.py --larder $(LARDER)
	$(PYTHON) tests/e2e/run.py --larder $(LARDER) --backends --only $(OVER_BACKENDS)

compiled: # builds all tests, and runs none
	$(CARGO) test --workspace --locked --no-run

e2e: tools build ## real clients only; choose some with E2E="--only npm helm"
	$(PYTHON) tests/e2e/run.py --larder $(LARDER) $(E2E)

tools: # the clients that the end-to-end tests drive, in pinned versions
	tests/install/clients.sh

# One client or two of each kind. `make stress` and `run.py --backends` have all of them.
OVER_BACKENDS := basics generic-curl generic-coalesced pypi-json-uv npm-pnpm npm-npm12 helm-helm4 alpine-v3 rpm-dnf oci-skopeo \
	oci-containerd local virtual-helm4

# What a user sees of the program: each test of these runs over PostgreSQL, Redis and S3, too, but for those that ask for a data directory
# of their own (`Setup::embedded`). Left out are the tests that bring their backends or open the database themselves (backends_*, cluster,
# freed, heartbeats, history, migrate, million, object_store, postgres, replicas, restored, s3_settings, scrub, scrub_objects), the
# snapshots, which were taken without backends, and what starts no larder that keeps anything (check, config, contract, corpora, documents).
PROGRAM_TESTS := $(addprefix --test ,http local virtual_helm operate edge links registries bad_documents bad_input guard reload drain \
	airgap bounded browse carried cli crash drip failures hostile shares ssrf startup traces ui)

# Ignored tests named child_… are processes that other tests start.
stress: build ## long and heavy tests: those that are marked `ignore`, 64 clients for 1 GiB, the program over the backends
	$(CARGO) test --workspace --release --locked --no-fail-fast -- --ignored --nocapture --skip child_
	$(PYTHON) tests/e2e/run.py --larder $(LARDER) --stress
	tests/over_backends.py $(CARGO) test --workspace --locked --no-fail-fast $(PROGRAM_TESTS)
	$(PYTHON) tests/e2e/run.py --larder $(LARDER) --backends

bench: build ## larder beside nginx in one run, and the document rewriters alone
	tests/install/clients.sh --bench
	$(CARGO) bench --workspace --locked
	$(PYTHON) tests/bench/run.py --larder $(LARDER)

fmt: ## format all code
	$(CARGO) fmt --all

audit: ## licences, bans and sources of all dependencies (with cargo-deny: `make tools` has it)
	$(DENY) --locked check --hide-inclusion-graph bans licenses sources

fuzz: ## each fuzz target for SECONDS (20), or one of them: FUZZ=npm_json. Finds go to fuzz/artifacts
	fuzz/run.sh $(or $(SECONDS),20) $(FUZZ)

build: ## the program as it is shipped: target/release/larder
	$(CARGO) build --release --locked

release: build ## the program packed: target/dist with a tarball, checksums and what it is made of (CycloneDX)
	$(MAKE) package

package: # only packs; another program than target/release/larder with LARDER=path
	packaging/release.sh $(LARDER) $(TARGET)/dist
