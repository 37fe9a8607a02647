# Everything a developer or an operator who tries Koguma needs; `make` alone lists it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help packages lab lab-down test test-fast test-long test-openstacksdk test-agent test-keystone test-cinder check format lock bench bench-boot bench-images bench-lifecycle clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
NODES ?= 3
# What tests compare with, besides the tools of the lab.
TEST_PACKAGES := rsync acl rpm busybox-static skopeo umoci fdisk uidmap libiscsi-bin qemu-block-extra

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/koguma: requirements.lock pyproject.toml
	@$(PYTHON) -m venv $(VENV) 2>/dev/null || { $(SUDO) apt-get update -q && $(SUDO) apt-get install -q -y --no-install-recommends python3-venv; $(PYTHON) -m venv --clear $(VENV); }
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@$(BIN)/python -m compileall -q src/koguma
	@touch $@

packages: ## Install the Debian packages that the lab and the tests use
	@missing=""; for package in $$(PYTHONPATH=src $(PYTHON) -m koguma.lab.packages) $(TEST_PACKAGES); do \
	  [ "$$(dpkg-query -W -f '$${Status}' $$package 2>/dev/null)" = "install ok installed" ] || missing="$$missing $$package"; done; \
	if [ -n "$$missing" ]; then echo "installing:$$missing"; $(SUDO) apt-get update -q; \
	  case "$$missing" in *" tgt"*) $(SUDO) ln -sfn /dev/null /etc/systemd/system/tgt.service;; esac; \
	  $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $$missing; fi

lab: packages $(BIN)/koguma ## Start the virtual datacentre and boot NODES=3 machines from off to running in RAM
	$(SUDO) $(BIN)/koguma lab up --nodes $(NODES)

lab-down: $(BIN)/koguma ## Stop the virtual datacentre; leaves nothing behind
	$(SUDO) $(BIN)/koguma lab down

test: packages $(BIN)/koguma ## Run the tests, those that boot machines too (but for test-long)
	$(SUDO) $(BIN)/pytest

test-fast: $(BIN)/koguma ## Run the tests that need neither root nor machines
	$(BIN)/pytest -m "not boot and not root and not slow and not long"

test-long: packages $(BIN)/koguma ## Node code alone, killed processes, NFS root (half an hour)
	$(SUDO) $(BIN)/pytest -m long

test-openstacksdk: $(BIN)/koguma ## The released openstacksdk's own bare-metal tests against a fresh server
	$(BIN)/python -m tests.openstack.run_sdk --work build/openstacksdk

test-agent: $(BIN)/koguma ## The released ironic-python-agent's API client looks up and heartbeats
	$(BIN)/python -m tests.openstack.run_agent --work build/agent

test-keystone: $(BIN)/koguma ## Koguma behind a real Keystone
	$(BIN)/python -m tests.openstack.run_keystone --work build/keystone

test-cinder: $(BIN)/koguma ## The volume driver cinder against a real Cinder, Glance and Keystone
	$(BIN)/python -m tests.openstack.run_cinder --work build/cinder

check: $(BIN)/koguma ## ruff, mypy, import-linter: run all, then report
	@failed=""; \
	$(BIN)/ruff check . || failed="$$failed ruff-check"; \
	$(BIN)/ruff format --check . || failed="$$failed ruff-format"; \
	$(BIN)/mypy || failed="$$failed mypy"; \
	MYPYPATH=node/common:node/stage1:node/stage2 $(BIN)/mypy -p koguma_node -p koguma_stage1 -p koguma_stage2 \
	  || failed="$$failed mypy-node"; \
	$(BIN)/lint-imports || failed="$$failed import-linter"; \
	if [ -n "$$failed" ]; then echo "make check failed:$$failed"; exit 1; fi; echo "make check: all clean"

format: $(BIN)/koguma ## Format the code
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

lock: ## Lock the dependencies again, with hashes
	$(BIN)/pip-compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options \
	  --strip-extras --allow-unsafe --extra dev --output-file requirements.lock pyproject.toml

bench: bench-boot bench-images bench-lifecycle ## Run every benchmark

bench-boot: packages $(BIN)/koguma ## Power-on to installed, against the direct boot of the same image
	$(SUDO) $(BIN)/python bench/boot.py

bench-images: packages $(BIN)/koguma ## The image repository beside OSTree and, where installed, restic, git, casync
	$(SUDO) $(BIN)/python bench/images.py

bench-lifecycle: $(BIN)/koguma ## The Ironic API: creates, PATCH, lists and deploys of a fleet of fake hardware
	$(BIN)/python bench/lifecycle.py --ironic build/ironic-39

clean: ## Remove what building and testing made here
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build src/*.egg-info
