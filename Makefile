# Everything that a developer or CI runs. Each target first installs what is missing (.ci/bootstrap), and that takes
# no time when nothing is. Arguments for pytest, or for uv in `make lock`, go into ARGS: make test ARGS="-k tunnel".

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash

# ip, tc and bpftool live in sbin, which a user's PATH may lack.
export PATH := $(PATH):/usr/sbin:/sbin

BIN := .venv/bin
# The resolver behind `make lock`: it pins for every Python and machine at once. Nothing else needs it.
UV := 0.13.9

# What protoc reads, and what it makes of that beside it.
PROTOS = $(sort $(wildcard zproxy/proto/*.proto tests/support/*.proto))
GENERATE = $(BIN)/python -m grpc_tools.protoc --proto_path=. $(PROTOS)

# What needs no root shares nothing and runs on all cores; root tests share the kernel and run one by one.
UNIT_TESTS = $(BIN)/python -m pytest -m "not root" -n auto
ROOT_TESTS = $(BIN)/python -m pytest -m root

# Everything that a shell runs: .ci/ has no suffixes.
SHELL_SCRIPTS = .ci/bootstrap .ci/run vagrant/provision.sh

.PHONY: help install demo bench bench-dns bench-state bench-steering test test-unit test-root test-node soak lint lint-code \
	lint-format lint-types lint-bpf lint-shell lint-vagrant fmt gen gen-check lock clean clean-root

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: ## Install what is missing: Debian packages (needs root) and .venv with the zproxy command
	@.ci/bootstrap

demo: install ## Build the lab, prove the claims on its live pods, show policy, take it down again (needs root)
	@trap 'status=$$?; $(BIN)/zproxy lab down || status=1; exit $$status' EXIT; \
	set -e; \
	$(BIN)/zproxy lab up; \
	$(BIN)/zproxy lab prove; \
	$(BIN)/zproxy lab policy

bench: ## Measure zproxy beside Envoy, under 20 minutes (needs root; BENCH_JSON=FILE writes the cells, ARGS=--help)
	@.ci/bootstrap bench
	@BENCH_JSON="$(BENCH_JSON)" $(BIN)/python -m tests.bench $(ARGS)

bench-steering: ## Measure steering beside iptables, enrolment and 200 pods, about 4 minutes (needs root)
	@.ci/bootstrap bench
	@BENCH_JSON="$(BENCH_JSON)" $(BIN)/python -m tests.bench.steering $(ARGS)

bench-dns: install ## Measure DNS beside a resolver without zproxy, under a minute (needs root; BENCH_JSON=FILE)
	@BENCH_JSON="$(BENCH_JSON)" $(BIN)/python -m tests.bench.dns $(ARGS)

bench-state: install ## Measure lookups, changes and memory of a mesh of 10,000 workloads (BENCH_JSON=FILE writes them)
	@BENCH_JSON="$(BENCH_JSON)" $(BIN)/python -m tests.bench.state $(ARGS)

test: ## Run every test and check, as CI does (needs root)
	@.ci/bootstrap test
	@$(UNIT_TESTS) $(ARGS); unit=$$?; $(ROOT_TESTS) $(ARGS); root=$$?; \
	: a selection in ARGS may find nothing on one side, which pytest calls 5; \
	case "$$unit $$root" in "0 0" | "0 5" | "5 0") ;; *) exit 1 ;; esac

test-unit: install ## Run the tests and checks that need neither root nor BPF
	@$(UNIT_TESTS) $(ARGS)

test-root: ## Run the tests that load BPF and make network namespaces (needs root)
	@.ci/bootstrap test
	@$(ROOT_TESTS) $(ARGS)

test-node: ## Run the tests with pods of a container runtime: containerd from Debian (needs root)
	@.ci/bootstrap test
	@$(ROOT_TESTS) $(sort $(wildcard tests/node/test_containerd*.py)) $(ARGS)

soak: install ## Run the long tests: a million fuzz cases, 200,000 connections, 10,000 idle, 200 pods (needs root)
	@$(BIN)/python -m pytest -o "norecursedirs=.*" tests/soak $(ARGS)

lint: lint-code lint-format lint-types lint-bpf lint-shell ## Check code, format and types; changes nothing

lint-code: install
	@$(BIN)/ruff check --quiet

lint-format: install
	@$(BIN)/ruff format --check

lint-types: install
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/mypy --no-error-summary vagrant/zproxy-demo

lint-bpf: install
	@find bpf tests -name '*.[ch]' -exec $(BIN)/clang-format --dry-run -Werror {} +

lint-shell: install
	@$(BIN)/shellcheck $(SHELL_SCRIPTS)

lint-vagrant: ## Let Vagrant check the Vagrantfile; installs Debian's, 16 MB (needs root the first time)
	@.ci/bootstrap vagrant
	@cd vagrant && VAGRANT_HOME=$$(mktemp -d) && export VAGRANT_HOME && trap 'rm -rf -- "$$VAGRANT_HOME"' EXIT && \
	vagrant validate --ignore-provider

fmt: install ## Format the code, and mend what the linter can mend by itself
	@$(BIN)/ruff check --fix --quiet || true
	@$(BIN)/ruff format --quiet
	@find bpf tests -name '*.[ch]' -exec $(BIN)/clang-format -i {} +

gen: install ## Make Python of the .proto files, after one of them was changed
	@$(GENERATE) --python_out=. --pyi_out=.

gen-check: install ## Say whether what `make gen` makes is what is there; changes nothing
	@set -e; made=$$(mktemp -d); trap 'rm -rf -- "$$made"' EXIT; \
	$(GENERATE) --python_out="$$made" --pyi_out="$$made"; \
	for file in $$(cd -- "$$made" && find . -name '*_pb2.py*'); do \
		cmp -s -- "$$made/$$file" "$$file" || { echo "$$file is not what protoc makes: run make gen" >&2; exit 1; }; \
	done

lock: ## Pin the dependencies anew, with hashes (ARGS=--upgrade takes the newest)
	@set -e; tool=$$(mktemp -d); trap 'rm -rf -- "$$tool"' EXIT; \
	/usr/bin/python3 -m venv "$$tool"; \
	"$$tool/bin/pip" install --quiet --disable-pip-version-check uv==$(UV); \
	"$$tool/bin/uv" pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --custom-compile-command "make lock" --quiet $(ARGS) --output-file requirements.lock; \
	"$$tool/bin/uv" pip compile pyproject.toml --group image --constraint requirements.lock --universal \
		--python-version 3.11 --generate-hashes --no-annotate --no-emit-index-url --custom-compile-command "make lock" \
		--quiet --output-file vagrant/image/requirements.lock

clean: ## Delete what was built or cached in this directory, .venv too
	@rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

clean-root: install ## Remove what a broken off lab or test run left in the kernel (needs root)
	@$(BIN)/zproxy lab down
	@ls -1 /sys/fs/bpf/zproxy /run/zproxy 2>/dev/null | grep '^zpt-' | sort -u | \
		xargs --no-run-if-empty --max-args=1 $(BIN)/zproxy cleanup --node
	@ip netns list | awk '/^zpt-/ { print $$1 }' | xargs --no-run-if-empty --max-args=1 ip netns delete
	@rm -rf /etc/netns/zpt-*
