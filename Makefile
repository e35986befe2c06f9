# The front door. Every target installs what it needs and says so; a second run finds it there.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

export TAKHIN_CACHE ?= $(HOME)/.cache/takhin
export PATH := $(TAKHIN_CACHE)/bin:$(PATH)
export CARGO_TERM_PROGRESS_WHEN ?= never

SECONDS_PER_TARGET ?= 60
SEEDS ?= 1000
FIRST ?= 1
TAG ?= dev
FUZZ_TARGETS := frame_decode request_decode record_batch segment_recovery \
    pika_binlog_item pika_resp pika_frame pika_legacy pika_dump

.PHONY: help build run images test test-api e2e verify fix generate bench bench-cdc compat fuzz coverage sim chaos failover many

help: ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS=$$'\t' read -r name text; do printf '  make %-10s %s\n' "$$name" "$$text"; done

build: ## the broker, optimised: target/release/takhin
	@.ci/tools cc
	cargo build --release --locked -p takhin-broker

run: ## build the broker and start one for development; ARGS="--kafka 127.0.0.1:19092"
	@.ci/tools cc
	cargo build --release --locked -p takhin-broker
	@exec "$${CARGO_TARGET_DIR:-target}/release/takhin" dev $(ARGS)

images: ## the images takhin/takhin and takhin/takhin-operator, TAG=dev, from Dockerfile.*; BASE=IMAGE for another base than none
	@.ci/tools cc rocksdb rsync
	@bash e2e/setup/images.sh "$(TAG)"

test: ## everything that fits one machine: format, lints, tests, stock clients, faults
	@.ci/test

test-api: ## the operator against a real API server, which is built once from Go modules; ARGS="crds" runs what has that in its name
	@.ci/tools cc
	@bash e2e/setup/kubernetes.sh kube etcd helm helm3 >/dev/null
	@if [ -z "$${TAKHIN_BIN:-}" ]; then cargo build -q --locked -p takhin-broker; fi
	@if [ -z "$${TAKHIN_OPERATOR_BIN:-}" ]; then cargo build -q --locked -p takhin-operator; fi
	@cargo test -q --locked -p takhin-e2e --test api -- $(ARGS)

e2e: ## the chart on a whole Kubernetes: E2E_CLUSTER=local (three nodes here; needs root), kind or existing; ARGS="story"
	@bash e2e/setup/e2e.sh $(ARGS)

verify: ## what a change must pass before it is pushed: `make test` without the client suites; edits nothing
	@.ci/test --without-clients

fix: ## format, and apply what clippy can mend
	cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged
	cargo fmt --all

generate: ## docs/reference from the tables in the code, Rust from .proto files
	cargo run -q -p xtask -- generate

bench: ## side by side with Apache Kafka; ARGS="--quick"
	@.ci/tools cc git
	cargo build --release --locked -p takhin-broker
	cargo run --release --locked -p takhin-bench -- all $(ARGS)

bench-cdc: ## takhin-cdc between a scripted master and takhin; ARGS="--sink kafka"
	@.ci/tools cc git rocksdb
	@bash e2e/setup/install.sh >/dev/null
	@if [ -z "$${TAKHIN_BIN:-}" ]; then cargo build --release --locked -p takhin-broker; fi
	cargo build --release --locked -p takhin-cdc
	cargo build --release --locked -p takhin-cdc --example write-again
	cargo build --release --locked -p takhin-pika-dump --example write-dump
	cargo run --release --locked -p takhin-e2e --bin cdc-bench -- $(ARGS)

compat: ## the suites of librdkafka and rust-rdkafka, scored on what passes on Apache Kafka; ARGS="--suite librdkafka --only 0030"
	@bash e2e/setup/compat.sh rust-rdkafka
	@if [ "$${E2E_BROKER:-takhin}" = takhin ] && [ -z "$${TAKHIN_BIN:-}" ]; then cargo build --release --locked -p takhin-broker; fi
	@cargo run -q --locked -p takhin-e2e --bin compat -- $(ARGS)

fuzz: ## each fuzz target for SECONDS_PER_TARGET=60 seconds, on nightly Rust
	@.ci/tools cc fuzz
	@for target in $(FUZZ_TARGETS); do \
	    echo "fuzz: $$target for $(SECONDS_PER_TARGET) s"; \
	    cargo +nightly fuzz run --fuzz-dir fuzz "$$target" -- -max_total_time=$(SECONDS_PER_TARGET) -rss_limit_mb=1024; \
	done

coverage: ## lines covered by the tests of the workspace, as HTML in target/coverage
	@.ci/tools cc tarpaulin
	cargo tarpaulin --workspace --exclude takhin-e2e --exclude xtask --engine llvm --skip-clean --timeout 900 --out Html --output-dir "$${CARGO_TARGET_DIR:-target}/coverage"

sim: ## simulated clusters under crashes, cuts and faults of disks; SEEDS=1000 FIRST=1
	@.ci/sim $(FIRST) $(SEEDS)

chaos: SEEDS = 10
chaos: ## real brokers under real faults, SEEDS=10 FIRST=1 ARGS="--faults kill,cut"; ARGS=--help says more, needs root
	@$(MAKE) --no-print-directory chaos-tools
	@old=$$([ "$(OLD)" = no ] || bash e2e/setup/compatible.sh); \
	cargo run -q --locked -p takhin-e2e --bin chaos -- \
	    run --seeds $(SEEDS) --first $(FIRST) $${old:+--old-binary "$$old"} $(ARGS)

failover: ## how long clients wait for another leader, by kind of failure; ARGS="--kills 50 --partitions 1000"
	@$(MAKE) --no-print-directory chaos-tools
	@cargo run -q --locked -p takhin-e2e --bin chaos -- failover $(ARGS)

many: ## what 10,000 partitions cost of which few are written to; ARGS="--partitions 10000 --active 500"
	@$(MAKE) --no-print-directory chaos-tools
	@cargo run -q --locked -p takhin-e2e --bin chaos -- many $(ARGS)

.PHONY: chaos-tools
chaos-tools:
	@.ci/tools cc git chaos
	@bash e2e/setup/install.sh
	@if [ -z "$${TAKHIN_BIN:-}" ]; then cargo build --release --locked -p takhin-broker; fi
