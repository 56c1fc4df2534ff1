# Everything a contributor runs. `make` alone lists the targets.
#
# The targets need Python 3.11 or newer and nothing else: they make their own virtual environments from the
# hash-locked requirements. PYTHON=... chooses the interpreter.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

# Every process of the tests would compile the whole program again.
unexport PYTHONDONTWRITEBYTECODE

VENV ?= .venv
DEMO_VENV ?= .venv-demo
BIN := $(VENV)/bin
WORKERS ?= 2
# Tests with real servers wait more than they compute. More of them do not end sooner on two cores.
SLOW_WORKERS ?= 6
UNIT_TESTS := $(wildcard tests/core tests/settings tests/runtime tests/cli)
# What takes longest comes first, so that no process is left alone with it at the end.
SLOW_FIRST := tests/image tests/e2e tests/app tests/adapters tests/contracts
SLOW_TESTS := $(SLOW_FIRST) $(filter-out $(SLOW_FIRST) $(UNIT_TESTS) %__pycache__,$(patsubst %/,%,$(wildcard tests/*/)))
# What writes a part of docs/benchmarks.md; each but campaign.py is in `make benchmarks`.
REPORTS := bench/side_by_side.py bench/growth.py bench/soak.py bench/page.py bench/viewers.py \
	bench/campaign.py
# All but compare.py are parts of the others; compare.py needs a second checkout.
PARTS := bench/committed.py bench/publish.py bench/workers.py bench/pages.py bench/page_store.py bench/compare.py
BENCHMARKS := $(filter-out $(PARTS) $(REPORTS),$(wildcard bench/*.py))
IMAGE ?= celery-monitor
ENGINE ?= $(shell command -v docker || command -v podman)
RUN_ARGS ?=
DEMO_ARGS ?=
BENCH_ARGS ?= --runs 5
SEEDS ?= 1 2 3
PYTEST_ARGS ?=

# What takes longest comes first.
LINT := lint-types lint-ruff lint-imports lint-files docs
# Two targets at a time; what each prints is shown in one piece when it has ended.
TOGETHER := $(MAKE) --no-print-directory --jobs=2 --output-sync=target

step = @printf '\n\033[1m== %s\033[0m\n' "$(1)"

.PHONY: help setup servers test lint $(LINT) docs docs-serve format unit slow coverage campaign campaign-report bench benchmarks run demo image assemble lock audit clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.installed ## the virtual environment, with the locked dependencies and the project in it

$(VENV)/.installed: requirements-dev.lock pyproject.toml .ci/venv
	$(call step,Setting up $(VENV): locked dependencies and the project)
	@.ci/venv $(VENV) requirements-dev.lock

servers: ## install the servers that the tests start, by apt-get, where missing and permitted
	$(call step,Looking for the servers that the tests start)
	@.ci/servers

test: ## everything that a change must pass: set-up, lint, all tests but the campaigns
	@$(MAKE) --no-print-directory setup
	@$(MAKE) --no-print-directory servers
	@$(TOGETHER) $(LINT) unit
	@$(MAKE) --no-print-directory slow
	$(call step,All passed)

lint: setup ## ruff, mypy, import-linter, yamllint, shellcheck, the documentation's links
	@$(TOGETHER) $(LINT)

lint-ruff: setup
	$(call step,Lint: ruff)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

lint-types: setup
	$(call step,Lint: mypy)
	@$(BIN)/mypy

lint-imports: setup
	$(call step,Lint: imports)
	@PYTHONPATH=. $(BIN)/lint-imports

lint-files: setup
	$(call step,Lint: YAML and shell)
	@.ci/lint-files $(BIN)

docs: setup ## the documentation as a site, in build/site; a broken link is an error
	$(call step,Documentation)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

docs-serve: setup ## show the documentation at http://127.0.0.1:8000 while you write it
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

format: setup ## let ruff correct and format what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

unit: setup ## the fast tests: no servers, no waiting
	$(call step,Unit tests)
	@$(BIN)/pytest $(UNIT_TESTS) -n $(WORKERS) $(PYTEST_ARGS)

slow: setup ## the tests with real servers
	$(call step,Tests with real servers: $(SLOW_WORKERS) at a time)
	@$(BIN)/pytest $(SLOW_TESTS) -n $(SLOW_WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

coverage: setup servers ## the same tests, measured: which lines of the program no test runs
	@rm -f .coverage .coverage.*
	@$(MAKE) --no-print-directory unit slow PYTEST_ARGS="--cov --cov-report= --cov-append $(PYTEST_ARGS)"
	$(call step,Coverage)
	@$(BIN)/coverage report

campaign: setup servers ## the long campaigns: crashes, cut connections, fuzzing, memory (PYTEST_ARGS='-k ...')
	$(call step,Campaigns: this takes a while)
	@$(BIN)/pytest tests -m campaign --timeout 0 -o faulthandler_timeout=0 -v $(PYTEST_ARGS)

bench: setup ## the benchmarks
	$(call step,Benchmarks)
	@for script in $(BENCHMARKS); do \
		echo "-- $$script"; PYTHONPATH=. $(BIN)/python "$$script"; \
	done

benchmarks: setup servers ## comparison with other tools, page, growth, soak: writes docs/benchmarks.md (takes hours: BENCH_ARGS)
	@PYTHONPATH=. $(BIN)/python bench/side_by_side.py --write $(BENCH_ARGS)
	@PYTHONPATH=. $(BIN)/python bench/page.py --write
	@PYTHONPATH=. $(BIN)/python bench/viewers.py --seconds 240 --write
	@PYTHONPATH=. $(BIN)/python bench/soak.py --write
	@PYTHONPATH=. $(BIN)/python bench/growth.py --write

campaign-report: setup servers ## all campaigns with three seeds, and their report in docs/benchmarks.md (SEEDS='1 2 3')
	@PYTHONPATH=. $(BIN)/python bench/campaign.py --write --seeds $(SEEDS)

run: setup ## the daemon, from this checkout: make run RUN_ARGS='--broker amqp://localhost'
	@$(BIN)/celery-monitor run $(RUN_ARGS)

demo: $(DEMO_VENV)/.installed ## everything in one process: broker, failing fleet, monitor, page
	@$(DEMO_VENV)/bin/celery-monitor demo $(DEMO_ARGS)

$(DEMO_VENV)/.installed: requirements.lock requirements-build.lock pyproject.toml .ci/venv
	$(call step,Setting up $(DEMO_VENV): locked run-time dependencies only)
	@.ci/venv $(DEMO_VENV) requirements.lock requirements-build.lock

image: ## the container image, by docker or podman as found
	@if [ -z "$(ENGINE)" ]; then echo "Neither docker nor podman is installed." >&2; exit 1; fi
	$(call step,Building the image $(IMAGE) with $(notdir $(ENGINE)))
	@BUILDAH_FORMAT=docker $(ENGINE) build --tag $(IMAGE) .  # the OCI format has no HEALTHCHECK

assemble: setup ## write what is generated anew: dashboards, the chart's copies and schema, references in docs/
	@$(BIN)/python deploy/grafana/build.py
	@PYTHONPATH=. $(BIN)/python helm/assemble.py
	@$(BIN)/celery-monitor config reference > docs/configuration.md
	@PYTHONPATH=. $(BIN)/python -m celery_monitor.adapters.prometheus.reference > docs/metrics.md

# UPGRADE=--upgrade takes the newest versions; without it only what pyproject.toml changed moves.
COMPILE = $(BIN)/uv pip compile --quiet --generate-hashes --universal --python-version 3.11 \
	--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' $(UPGRADE)
lock: setup ## write the lock files anew from pyproject.toml (UPGRADE=--upgrade for the newest versions)
	$(call step,Locking the dependencies)
	@$(COMPILE) --group dev --extra apprise --extra oidc --extra postgresql --output-file requirements-dev.lock pyproject.toml
	@$(COMPILE) --extra apprise --extra oidc --extra postgresql --constraint requirements-dev.lock --output-file requirements.lock pyproject.toml
	@echo 'flit-core' | $(COMPILE) --no-annotate --constraint requirements-dev.lock \
		--output-file requirements-build.lock -
	@wc -l requirements*.lock

audit: setup ## known vulnerabilities in the locked run-time dependencies (asks the package index and its advisories)
	$(call step,Audit of requirements.lock)
	@$(BIN)/pip-audit --disable-pip --require-hashes -r requirements.lock

clean: ## remove what the targets above made
	@rm -rf $(VENV) $(DEMO_VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist
	@rm -f .coverage .coverage.*
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
