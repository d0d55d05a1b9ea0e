# Everything a developer or CI runs. `make serve` and `make test` need Python 3.11 or newer and make, nothing else.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
RUNTIME := $(VENV)/.runtime

.PHONY: help serve test lint format
help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 22

# The environment, and the registry in it: all that `make serve` needs.
$(RUNTIME): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Moorage needs Python 3.11 or newer; '$(PYTHON)' is older. Try: make $(MAKECMDGOALS) PYTHON=python3.13"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { rm -rf $(VENV); echo "Could not make $(VENV). On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@echo "Setting up $(VENV): some seconds, once"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

# What tests and tools need besides.
$(STAMP): $(RUNTIME)
	@echo "Setting up what the tests need: about a minute, once"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

serve: $(RUNTIME) ## run the registry on ./data at port 5000
	@REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY=$${REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY:-./data} $(BIN)/registry serve

test: $(STAMP) ## the tests that need Python alone
	$(BIN)/python -m pytest $(ARGS)

lint: $(STAMP) ## ruff and mypy
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMP) ## put the code into shape
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: clients clients-packages
clients: $(STAMP) ## docker, containerd, skopeo, oras and the like against our registry (as root)
	$(BIN)/python -m pytest -m clients tests/clients $(ARGS)

clients-packages: ## install the Debian packages that `make clients` needs
	tests/clients/install.sh

# Peers and suites in Go, each pinned in conformance/tools/<tool>. A required one that does not build stops make.
TOOLS          := conformance distribution crane oras regctl helm cosign minio
TOOLS_REQUIRED := conformance distribution crane oras regctl

.PHONY: tools
tools: $(TOOLS:%=.tools/bin/%) ## build the pinned Go tools that are missing (Go 1.26)

.tools/bin/%: conformance/tools/%/go.mod conformance/tools/%/go.sum conformance/tools/%/tools.go conformance/tools/build
	@conformance/tools/build $* $(if $(filter $*,$(TOOLS_REQUIRED)),,--optional)

.PHONY: conformance
conformance: $(STAMP) .tools/bin/conformance ## the official conformance suites, on each driver; some with ARGS='filesystem-dev'
	$(BIN)/python -m pytest --quiet conformance
	$(BIN)/python -m conformance.run $(ARGS)

# Debian's docker-registry (2.8) is looked for on PATH; a peer that is missing costs one line, see tests/interop/conftest.py.
.PHONY: interop crash
interop: $(STAMP) .tools/bin/distribution ## our folders served by CNCF distribution and the other way round
	$(BIN)/python -m pytest -m interop tests/interop $(ARGS)

crash: $(STAMP) ## kill -9 the registry 200 times during pushes, and every fault; `make test` has a short round
	MOORAGE_KILLS=200 MOORAGE_SWEEP=all $(BIN)/python -m pytest -s tests/crash tests/faults $(ARGS)

.PHONY: crash-bucket
crash-bucket: $(STAMP) ## every fault at every call to S3, in about an hour; ARGS='-k outage' some of them
	MOORAGE_SWEEP=all $(BIN)/python -m pytest -s tests/s3/test_sweep.py $(ARGS)

.PHONY: s3
s3: $(STAMP) .tools/bin/distribution ## a blob of 6 GiB in and out of S3 with its memory, and the calls counted: minutes, 13 GiB of disk
	MOORAGE_LARGE=6144MiB MOORAGE_S3=1 $(BIN)/python -m pytest tests/s3/test_large.py tests/s3/test_calls.py $(ARGS)

.PHONY: proxy gc-load
proxy: $(STAMP) .tools/bin/distribution ## 200 clients on one uncached blob of 256 MiB, with the memory: minutes
	MOORAGE_FLEET=268435456 $(BIN)/python -m pytest -s -m "interop or not interop" tests/registry/proxy/test_fleet.py tests/interop/test_pull_through.py $(ARGS)

gc-load: $(STAMP) ## half an hour of pushes, deletes and collections; ARGS='--minutes 5 --s3' or '--registry distribution-3'
	$(BIN)/python -m tests.gc_load $(ARGS)

# A peer that does not build costs a line here and a column that says so, not the run.
.PHONY: bench bench-packages
bench: $(STAMP) ## benchmarks beside the peers, up to 90 minutes; QUICK=1 about 15; ONLY=pull,push some suites; WORK=FOLDER
	-@$(MAKE) --no-print-directory .tools/bin/distribution
	$(BIN)/python -m pytest --quiet benchmarks
	$(BIN)/python -m benchmarks $(if $(QUICK),--scale quick) $(if $(ONLY),--only '$(ONLY)') $(if $(WORK),--work '$(WORK)') $(ARGS)

.PHONY: soak
soak: $(STAMP) ## ten minutes of every kind of client at once: memory flat, open files back; QUICK=1 one minute
	$(BIN)/python -m benchmarks.soak $(if $(QUICK),--minutes 1 --results benchmarks/results/quick) $(if $(WORK),--work '$(WORK)') $(ARGS)

bench-packages: $(STAMP) ## install what `make bench` needs: wrk, nginx, docker-registry (as root), and matplotlib
	benchmarks/install.sh
	@echo "Setting up $(VENV): about a minute, once"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'

.PHONY: image image-lock image-test
BASE ?= python:3.13-slim
image: ## build the image `moorage`; BASE=IMAGE over another base than the official slim Python
	docker build --build-arg BASE=$(BASE) --tag moorage .

# All that is installed in the image, with the hashes of every platform and Python. uv is asked for only here.
image-lock: $(RUNTIME) ## pin the newest of what the image holds (deploy/image/*.txt)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	deploy/image/lock $(BIN)

image-test: $(STAMP) clients-packages ## build the image upon a base made here, run it, and compose (as root): up to 10 minutes from nothing
	$(BIN)/python -m pytest -m image tests/image $(ARGS)
