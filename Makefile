# Every target makes and re-uses .venv by itself; as root on Debian it also installs the Debian packages that are missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CLUSTER ?= lab

.PHONY: help demo test test-quick test-long check coverage bench bench-stack bench-loss bench-names bench-big lab lab-down cluster packages format clean
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
	$(MAKE) coverage

#: make coverage    branches of wire (100 %) and stack (95 % and more) that their quiet tests reach
coverage: $(STAMP)
	$(BIN)/python -m pytest -q tests/quiet/wire tests/quiet/stack --ignore=tests/quiet/stack/test_fuzz.py --ignore=tests/quiet/stack/test_netsim.py \
	  --cov=kt_net.wire --cov=kt_net.stack --cov-report=
	$(BIN)/coverage report --include='kt_net/wire/*' --fail-under=100 --skip-covered
	$(BIN)/coverage report --include='kt_net/stack/*' --fail-under=95 --skip-covered

#: make bench       the tunnel against kubectl port-forward on the lab (root; 8 min; build/bench.json)
bench: $(STAMP) packages
	$(BIN)/python -m tests.bench.tunnel

#: make bench-stack the stack against the raw loop of the same device (root; 2 min; build/bench-stack.json)
bench-stack: $(STAMP) packages
	$(BIN)/python -m tests.bench.stack

#: make bench-loss  a broken path, kernel to stack against kernel to kernel (root; 20 min; build/bench-loss.json)
bench-loss: $(STAMP) packages
	$(BIN)/python -m tests.bench.loss

#: make bench-names names outside the cluster before and while connected, and the steps of a start (root; the lab; 3 min; build/names.json)
bench-names: $(STAMP) packages
	$(BIN)/python -m tests.bench.names

#: make bench-big   ranges of a cluster with 5,000 Services and 10,000 pods (root; the lab; 10 min; build/big.json)
bench-big: $(STAMP) packages
	$(BIN)/python -m tests.bench.big

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
