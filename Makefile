# Every target sets up .venv by itself if it is missing or older than the lock files.
.DELETE_ON_ERROR:
.PHONY: .venv demo test test-fast test-deploy lint format ui perf soak screenshots figures lock clean

# Where bytecode is forbidden, as in many containers, each process of a test or a run would compile all of it anew.
unexport PYTHONDONTWRITEBYTECODE
BIN := .venv/bin
SUPPORTED := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
CORES := $(shell getconf _NPROCESSORS_ONLN)
# One more than cores: some tests wait, for a daemon or a deadline. Those of test-fast do not.
WORKERS ?= $(shell expr $(CORES) + 1)
PYTEST := $(BIN)/python -m pytest --dist loadfile --no-loadscope-reorder
PORT ?= 3000
VIEWER_PORT ?= 3001
MINUTES ?= 30
SEED ?= 1

demo: .venv/.ready  ## run the built-in experiment, from agents to the results store
	$(BIN)/cooperbench-assets demo

test: .venv/.ready  ## all tests
	$(PYTEST) -n $(WORKERS)

test-fast: .venv/.ready  ## the tests that need neither time, nor an engine, nor a browser
	$(PYTEST) -n $(CORES) -m "not slow and not engine and not browser"

test-deploy: .venv/.ready .venv/.deploy  ## a deployment in containers (Docker engine, Compose, Postgres), a cluster (Ray)
	$(PYTEST) -n 2 -m deploy

lint: .venv/.ready  ## formatter, linter and type checker
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/.ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# DAGSTER_HOME spares a temporary one; dg, which Dagster would rather have here, is slower and brings nothing more.
ui: .venv/.ready  ## the Dagster web UI on http://127.0.0.1:3000 (PORT) with the viewer on 3001 (VIEWER_PORT) beside it
	DAGSTER_HOME="$(CURDIR)" PYTHONFAULTHANDLER=1 COOPERBENCH_ASSETS_UI_URL=http://127.0.0.1:$(PORT) \
	  COOPERBENCH_ASSETS_VIEWER_URL=http://127.0.0.1:$(VIEWER_PORT) $(BIN)/python -m cooperbench_assets.viewer.beside -- \
	  $(BIN)/python -W 'ignore:Function `dev_command` is superseded' -m dagster dev --host 127.0.0.1 --port $(PORT)

perf: .venv/.ready  ## measurements, with floors and peers in the same run
	$(BIN)/python -m perf

soak: .venv/.ready  ## random faults against real runs: make soak MINUTES=30 SEED=1 SOAK="--execution docker"
	$(BIN)/python -m perf.soak --minutes $(MINUTES) --seed $(SEED) $(SOAK)

screenshots: .venv/.ready  ## the pictures in docs/, from the real UI in Chromium
	$(BIN)/python -m cooperbench_assets_tests.screenshots docs

figures: demo  ## the demo's figures in docs/
	for name in success_by_setting success_by_difficulty; do \
	  cp data/report/demo/figures/$$name.png docs/demo-$$(echo $$name | tr _ -).png; \
	done

.venv: .venv/.ready

# An interpreter on the PATH may be a shim that fails, so each candidate is run before it is chosen. One that was named
# (PYTHON=…) is used or refused: CI would otherwise test another version than it says.
.venv/.ready: requirements.lock harness.lock pyproject.toml
	@set -e; \
	for python in $(or $(PYTHON),python3.12 python3.11 python3.13 python3 python); do \
	  if command -v $$python >/dev/null && $$python -c '$(SUPPORTED)' 2>/dev/null; then chosen=$$python; break; fi; \
	done; \
	if [ -z "$$chosen" ]; then \
	  echo "make: $(if $(PYTHON),PYTHON=$(PYTHON) is no,no) Python 3.11, 3.12 or 3.13 with venv and ensurepip$(if $(PYTHON),, on the PATH); install one, or name it: make PYTHON=/path/to/python" >&2; exit 1; \
	fi; \
	echo "Setting up .venv with $$($$chosen --version)"; \
	rm -rf .venv; $$chosen -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement harness.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

.venv/.deploy: .venv/.ready ray.lock deploy.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement ray.lock --requirement deploy.lock
	@touch $@

lock:  ## pin the newest versions that pyproject.toml allows (needs uv)
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --upgrade \
	  --no-emit-index-url --no-header --no-annotate --quiet --output-file requirements.lock

clean:  ## remove run-time files of the demo and caches; .venv and your logs stay
	rm -rf data/dagster data/tables data/transcripts data/results.duckdb data/report data/demo .mypy_cache .ruff_cache .pytest_cache
