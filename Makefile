# make check: the fast checks, for any user on any Linux. make test: all but the longest tests. make demo: see it run.
SHELL := /bin/bash
.DELETE_ON_ERROR:
export NODERUNTIME_CACHE ?= $(HOME)/.cache/noderuntime
VENV := $(NODERUNTIME_CACHE)/venv/bin
SYSTEM_PYTHON := $(shell for python in python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { command -v $$python; break; }; done)
# The harness is a package of tests and demo, not of the distribution.
export PYTHONPATH := tests/cluster
export PATH := $(VENV):$(NODERUNTIME_CACHE)/bin:$(PATH):/usr/sbin:/sbin
IMAGE ?= noderuntime:dev
KEEP ?=
RUNS ?= 5000
QUICK ?=
NODES ?=
K ?=
UPGRADE ?=
PYTEST := $(VENV)/pytest
# Locally a daemon keeps mypy's results for the next run.
MYPY := $(VENV)/$(if $(CI),mypy,dmypy run --timeout 3600 --)
CRITEST := PYTHONPATH=tests:tests/contract $(VENV)/python -m critest

.NOTPARALLEL:
.PHONY: help venv setup check lint types imports unit fuzz contract critest critest-gvisor critest-delegate \
	critest-websocket cluster-test fleet-test fleet-quick kubelet-test vm-test scale-test scale-quick test bench bench-images demo demo-down \
	image dist lock proto crds

help:
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

venv: ## install the Python packages of requirements.lock; needs Python 3.11 or newer, no root
	@test -n "$(SYSTEM_PYTHON)" || { echo 'venv: Python 3.11 or newer is needed' >&2; exit 1; }
	@$(SYSTEM_PYTHON) scripts/environment.py

setup: ## install what the targets below need: Debian packages, the venv, Go programs; needs root on Debian 12
	@test -n "$(SYSTEM_PYTHON)" || { echo 'setup: Python 3.11 or newer is needed' >&2; exit 1; }
	@$(SYSTEM_PYTHON) scripts/setup.py

check: lint types imports unit ## the fast checks: no root, no Debian packages, no Go

lint: venv ## ruff: rules and format
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .

types: venv ## mypy --strict on everything but unit tests, contract tests and fuzzers
	$(MYPY)

imports: venv ## the layer rules of .importlinter
	$(VENV)/lint-imports --no-cache

unit: venv ## unit tests and their coverage; K=expression selects tests
	$(PYTEST) tests/unit --numprocesses auto --timeout 60 $(if $(K),-k '$(K)',--cov --cov-report=)
	@$(if $(K),,$(VENV)/coverage report | tail -n 1)

fuzz: setup ## fuzz layers and streaming clients; RUNS=N sets the number of inputs
	$(VENV)/python tests/fuzz/fuzz_tar.py --runs $(RUNS)
	PYTHONPATH=tests/clients $(VENV)/python tests/fuzz/fuzz_spdy.py --runs $(RUNS)

contract: setup ## contract tests: with the real tools, on this machine
	$(PYTEST) tests/contract

critest: setup ## CRI conformance suite: runc, as the only runtime of the node
	$(CRITEST) --setting alone

critest-gvisor: setup ## the suite in gVisor, without the specs in tests/critest/not-in-gvisor.toml
	$(CRITEST) --setting alone --handler gvisor

critest-delegate: setup ## the suite beside containerd: with containerd's pods, then with ours
	$(CRITEST)
	$(CRITEST) --handler runc

critest-websocket: setup ## the suite's streaming specs, over WebSocket
	for handler in runc gvisor; do \
		$(CRITEST) --handler $$handler --ginkgo.focus=Streaming \
			-websocket-exec -websocket-attach -websocket-portforward || exit; done

cluster-test: setup ## the demo's story, the switch and recovery as tests, on clusters that they create and remove
	$(PYTEST) tests/cluster

fleet-test: setup ## three nodes: upgrades in waves, outages, reinstallations, removal
	$(PYTEST) tests/fleet

fleet-quick: setup ## the part of fleet-test that make test runs
	$(PYTEST) tests/fleet -m quick

kubelet-test: setup ## a kubelet with noderuntime as its only runtime
	$(PYTEST) tests/kubelet

vm-test: setup ## cgroup v2 and systemd's driver, in an emulated machine: about 15 minutes, not part of test
	@$(SYSTEM_PYTHON) scripts/setup.py qemu-system-x86 e2fsprogs
	PYTHONPATH=tests:tests/contract:tests/cluster $(VENV)/python -m vm

scale-test: setup ## the operator with simulated nodes on a real API server: 5000 of them, or NODES=N
	NODES=$(NODES) PYTHONPATH=tests:tests/contract:tests/cluster $(VENV)/python -m scale

scale-quick: setup ## the part of scale-test that make test runs
	NODES=500 PYTHONPATH=tests:tests/contract:tests/cluster $(VENV)/python -m scale

test: setup check contract critest critest-gvisor critest-delegate critest-websocket cluster-test fleet-quick scale-quick kubelet-test ## all checks and tests but fleet-test, vm-test, scale-test and fuzz

bench: setup ## compare pods with containerd: times, CPU, memory; QUICK=1 takes five minutes
	QUICK=$(QUICK) PYTHONPATH=tests:tests/contract $(VENV)/python -m bench.cri

bench-images: setup ## compare pulls of images with containerd
	QUICK=$(QUICK) PYTHONPATH=tests:tests/contract $(VENV)/python -m bench.images

demo: setup ## show the whole story step by step; KEEP=1 keeps the cluster; NODES=3 shows upgrades on three nodes
	@KEEP=$(KEEP) NODES=$(NODES) $(VENV)/python -m story.demo

demo-down: ## remove the demo's cluster
	@$(VENV)/python -m harness down demo

image: setup ## build the image, and push it: make image IMAGE=registry.example/noderuntime:1
	$(VENV)/python image/build.py --image $(IMAGE) $(if $(findstring /,$(IMAGE)),--push)

dist: setup ## wheel and chart of a release, into dist/
	$(VENV)/python -m hatchling build --directory dist --target wheel
	helm package charts/noderuntime --destination dist

lock: venv ## regenerate requirements.lock from pyproject.toml; UPGRADE=1 raises what pyproject.toml does not pin
	$(VENV)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes \
		$(if $(UPGRADE),--upgrade) --custom-compile-command 'make lock' --quiet --output-file requirements.lock

proto: venv ## regenerate the gRPC stubs from the schemas
	PYTHON=$(VENV)/python scripts/proto

crds: venv ## regenerate the CRDs from the models
	$(VENV)/python -m noderuntime_operator.crdgen
