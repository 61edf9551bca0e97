# Hostler's entry points. CI runs the same targets, nothing else.
SHELL := /bin/sh
CLOUD ?= default
PY := .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help up down clean status doctor setup-run setup-dev format check unit sim host-test walk conformance conformance-core golden bench routes test

help: ## Show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: setup-run ## Start a whole cloud on this machine and boot a server named `first`; HOSTS=2 for two hosts
	@.venv/bin/hostler up --cloud $(CLOUD) $(if $(HOSTS),--hosts $(HOSTS))

down: ## Stop everything; `make up` brings it back with its guests
	@.venv/bin/hostler down --cloud $(CLOUD)

clean: ## Remove everything the cloud made on this machine, also after a crash
	@[ ! -x .venv/bin/hostler ] || .venv/bin/hostler clean --cloud $(CLOUD)

status: ## Show processes, hosts and servers
	@.venv/bin/hostler status --cloud $(CLOUD)

doctor: ## Check this machine and the running cloud, with what to do about each finding
	@.venv/bin/hostler doctor --cloud $(CLOUD)

setup-run:
	@packaging/setup.sh run

setup-dev:
	@packaging/setup.sh dev

format: setup-dev ## Format the code
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix-only -q .

check: setup-dev ## Format, lint, types, import contracts, tidiness (under 30 s)
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	.venv/bin/lint-imports
	$(PY) -m pytest -q tests/tidy

unit: setup-dev ## Unit, route, saga and database tests
	$(PY) -m pytest -q -n 2 --dist worksteal -m "not host and not walk" --ignore tests/sim --ignore tests/tidy

sim: setup-dev ## The simulation; SEED=N replays one
	$(PY) -m pytest -q -n 2 tests/sim $(if $(SEED),--seed $(SEED))

host-test: setup-dev ## Real libvirt, packets and images on this machine (root)
	$(PY) -m pytest -q -n 2 --dist loadfile -m host tests

walk: setup-dev ## A whole cloud with real guests, driven by the unmodified client (root)
	$(PY) -m pytest -q -m walk tests

conformance: setup-dev ## OpenStack's own judge, Tempest, on a cloud with fake hosts
	$(PY) -m tests.conformance

conformance-core: setup-dev ## The heart of it, in two minutes
	$(PY) -m tests.conformance --core

golden: setup-dev ## Write the wire's golden messages anew, after a change that was meant
	$(PY) -m tests.wire.regenerate

bench: setup-dev ## Our numbers beside the real OpenStack's
	$(PY) -m tests.bench

routes: setup-run ## Print every endpoint
	@$(PY) -m controller routes

test: check unit sim host-test walk conformance-core ## Everything CI runs
