# Every target makes and re-uses .venv by itself; as root on Debian it also installs the Debian packages that are missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CLUSTER ?= lab

.PHONY: help demo test test-quick test-long check lab lab-down cluster packages format clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^#: //p' $(MAKEFILE_LIST)

#: make demo        start a real Kubernetes, connect, show what answers (CLUSTER=kubeconfig: your own cluster)
demo: $(STAMP) packages
	CLUSTER=$(CLUSTER) $(BIN)/python -m tests.demo

#: make test        all tests: quiet, net, cluster (root; starts the lab; CLUSTER=kind|kubeconfig for another cluster)
test: $(STAMP) cluster
	$(BIN)/python -m pytest -q --cluster $(CLUSTER)

#: make test-quick  the quiet tests only: no root, no cluster
test-quick: $(STAMP)
	$(BIN)/python -m pytest -q tests/quiet

#: make test-long   all tests at full size and duration
test-long: $(STAMP) cluster
	$(BIN)/python -m pytest -q --cluster $(CLUSTER) --long

#: make check       format, lint, types, import contracts
check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

#: make format      write the format that check wants
format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

#: make lab         start the test cluster;  make lab-down: stop it and leave nothing
lab: $(STAMP) packages
	$(BIN)/python -m tests.lab up

lab-down: $(STAMP)
	$(BIN)/python -m tests.lab down

# Before pytest, so that the first build shows its progress.
cluster: packages
	@if [ "$(CLUSTER)" = lab ]; then $(BIN)/python -m tests.lab up; fi

packages: $(STAMP)
	@if [ "$(CLUSTER)" = lab ]; then $(BIN)/python -m tests.lab packages; fi

# python-pytun is a C extension: it needs a compiler and Python's headers, which Debian does not have by default.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import ensurepip, os, shutil, sysconfig; assert shutil.which("gcc") and os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h"))' 2>/dev/null \
	  || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && echo "installing Debian packages: gcc libc6-dev python3-dev python3-venv" \
	       && apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qqy install --no-install-recommends gcc libc6-dev python3-dev python3-venv >/dev/null; } \
	  || { echo "a C compiler, Python's headers and venv are needed (Debian: gcc libc6-dev python3-dev python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -e '.[dev]'
	@touch $(STAMP)

clean:
	rm -rf $(VENV) build
