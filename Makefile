# Two commands: `make optimize` and `make test`. Both make their own .venv from requirements.lock. `make help` lists all.
PYTHON ?= python3
TASK ?= support_triage
MODEL ?= local/smollm2-135m
ARGS ?=
EXTRAS := ray,otel,wandb,clearml,embedding,promptfoo,frameworks,openai-node,tune
VENV := .venv
BIN := $(VENV)/bin

# Compiled once and kept, also where the environment says not to: pip compiles nothing here, and tests start hundreds of processes.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help optimize setup test types rooms extras test-extras test-python long check bench bench-quick planted replay chaos docs docs-reference clean
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 16

$(VENV)/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12"; exit 1; }
	@echo "making $(VENV) from requirements.lock (about a minute)"
	@$(BIN)/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps --require-hashes -r requirements.lock || { echo "the package index cannot be reached or refused a package; check the network and run the same command again"; exit 1; }
	@PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

setup: $(VENV)/ready ## make the environment and fetch the embedded model
	@$(BIN)/optimize models fetch

optimize: setup ## search for the best prompt: make optimize TASK=support_triage MODEL=local/smollm2-135m
	@$(BIN)/optimize run $(TASK) --model $(MODEL) $(ARGS)

test: setup ## every test but long, bench and chaos
	$(BIN)/ruff check agent promptassay tests
	@$(MAKE) --no-print-directory -j 2 types rooms
	$(BIN)/python -m pytest tests/engine -m "not long and not extra"

types:
	$(BIN)/mypy

rooms:
	$(BIN)/python -m pytest --ignore tests/engine -m "not long and not extra" -n auto --dist worksteal

build/extras-venv/ready: requirements-extras.lock $(VENV)/ready
	@echo "making build/extras-venv: $(VENV) and the packages of requirements-extras.lock"
	@$(BIN)/python -m venv --clear build/extras-venv
	@build/extras-venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps --require-hashes -r requirements-extras.lock
	@$(BIN)/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' > $$(build/extras-venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/venv.pth
	@touch $@

build/extras-venv/torch: requirements-torch.lock build/extras-venv/ready
	@build/extras-venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps --require-hashes -r requirements-torch.lock 2>/dev/null || echo "no PyTorch build for CPUs was found (docs/development)"
	@touch $@

build/promptfoo/ready: Makefile
	@npm install --prefix build/promptfoo --no-audit --no-fund --loglevel error promptfoo@0.121.20 @libsql/linux-x64-gnu@0.5.29 >/dev/null
	@touch $@

build/openai-node/ready: Makefile
	@npm install --prefix build/openai-node --no-audit --no-fund --loglevel error openai@7.59.0 >/dev/null
	@touch $@

needs = $(if $(findstring $(1),$(EXTRAS)),$(2))
extras: build/extras-venv/ready $(call needs,tune,build/extras-venv/torch) $(call needs,promptfoo,build/promptfoo/ready) $(call needs,openai-node,build/openai-node/ready)

test-extras: setup extras ## the tests that need other packages: Ray, OpenTelemetry, Weights & Biases, ClearML, PyTorch, word vectors, promptfoo, agent frameworks
	@named=$(EXTRAS); build/extras-venv/bin/python -c 'import torch' 2>/dev/null || { named=$$(echo $$named | sed 's/,tune//'); echo "training with PyTorch is not tested here: it is not installed"; }; \
	build/extras-venv/bin/python -m pytest --extras $$named

test-python: ## the tests with another Python: make test-python PYTHON=python3.13
	@$(MAKE) --no-print-directory VENV=build/venv-$(notdir $(PYTHON)) setup rooms

long: setup ## the long tests: kills in every kind of run, samplers, interrupted sweeps, more of the engine; properties on new random cases
	$(BIN)/python -m pytest --ignore tests/engine -m "hypothesis and not long and not extra" --hypothesis-profile=random -n auto --dist worksteal
	$(BIN)/python -m pytest -m "long and not extra"

check: $(VENV)/ready ## format, lint and types only
	$(BIN)/ruff format agent promptassay tests
	$(BIN)/ruff check agent promptassay tests
	$(BIN)/mypy

bench: setup ## measurements, and the arena (hours; continues where it stopped); nothing is asserted
	$(BIN)/python -m tests.bench.bench_help
	$(BIN)/python -m tests.bench.import_runtime
	$(BIN)/python -m tests.bench.throughput
	$(BIN)/python -m tests.bench.retrieval
	$(BIN)/python -m tests.bench.big_ledger
	$(BIN)/python -m tests.bench.merge
	$(BIN)/python -m tests.bench.web_pages
	$(BIN)/python -m tests.bench.sweep
	$(BIN)/python -m tests.bench.arena $(ARGS)

bench-quick: setup ## the arena in small: two tasks, ours against random search and, on the first, a DSPy optimizer (under 20 minutes)
	$(BIN)/python -m tests.bench.arena --quick --fresh

planted: $(VENV)/ready ## a prompt with two swapped labels, repaired by a small proposer: ten seeds, scripted models
	$(BIN)/python -m tests.bench.planted_defect $(ARGS)

replay: $(VENV)/ready ## search policies and statistics over recorded outcomes, no model needed
	$(BIN)/python -m tests.bench.arena.replay $(ARGS)
	$(BIN)/python -m tests.bench.arena.replay_stats

chaos: $(VENV)/ready ## the fault campaign: kill points of every job, faults of the machine (about half an hour)
	@$(BIN)/python -m tests.chaos $(ARGS)

build/docs-venv/ready: docs/requirements.txt
	@$(PYTHON) -m venv --clear build/docs-venv
	@build/docs-venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r docs/requirements.txt
	@touch $@

docs: build/docs-venv/ready ## the manual as a web site in build/docs; warnings are errors
	build/docs-venv/bin/zensical build --clean --strict
	@! grep -rE '<(script|link|img|iframe)[^>]* (src|href)="?(https?:)?//|(url\(|@import )"?(https?:)?//' build/docs --include='*.html' --include='*.css' || { echo "a page loads something from another host"; exit 1; }

docs-reference: $(VENV)/ready ## the pages of docs/ that are generated from the code
	$(BIN)/python -m tests.docs.reference

clean: ## remove the environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build/docs build/docs-venv build/extras-venv build/promptfoo build/openai-node
