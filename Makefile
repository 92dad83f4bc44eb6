# `make help` lists what there is.

# The first Python that Luigi supports. A name on PATH may be a shim without a Python behind it, so each is tried.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
  $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$p && break; done)
PUBLISHER ?= sample
PORT ?= 8082
HOURS ?= 4
WORKERS ?= 4
SEED ?= 1
VENV := .venv
STAMP := $(VENV)/.installed
BENCH_VENV := .venv-bench
BENCH_STAMP := $(BENCH_VENV)/.installed
# Once, instead of in each of the thousand commands of the tests where PYTHONDONTWRITEBYTECODE is set.
COMPILE = $(VENV)/bin/python -m compileall -q pipeline tests endurance benchmarks
# So does pytest with the tests, whose assertions it rewrites: once, instead of in each of its processes.
REWRITE = PYTHONDONTWRITEBYTECODE= $(VENV)/bin/python -m pytest --collect-only -qq >/dev/null 2>&1

.DEFAULT_GOAL := help
.PHONY: help run ui test test-quick format bench bench-full endurance clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(STAMP): requirements.txt requirements-dev.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11, 3.12 or 3.13 found; install one, or name it: make PYTHON=/path/to/python"; exit 1; }
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the requirements into $(VENV) (once) ..."
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

$(BENCH_STAMP): requirements.txt requirements-dev.txt benchmarks/requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11, 3.12 or 3.13 found; install one, or name it: make PYTHON=/path/to/python"; exit 1; }
	@test -x $(BENCH_VENV)/bin/python || $(PYTHON) -m venv $(BENCH_VENV)
	@echo "Installing the requirements of the benchmarks into $(BENCH_VENV) (once) ..."
	@$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt
	@$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

run: $(STAMP) ## run the pipeline: synthetic months into ./demo; PUBLISHER=tlc or dtc: from the internet into ./lake
ifeq ($(PUBLISHER),sample)
	@PIPELINE_PUBLISHER_NAME=sample PIPELINE_LAKE_URL=file:demo/lake PIPELINE_WORKSPACE_URL=file:demo/workspace \
	  PIPELINE_WAREHOUSE_URL=duckdb:///demo/warehouse.duckdb \
	  $(VENV)/bin/luigi --module pipeline RangeMonthly --local-scheduler
else
	@$(VENV)/bin/luigi --module pipeline RangeMonthly --local-scheduler --publisher-name $(PUBLISHER)
endif

ui: $(STAMP) ## start luigid with history and metrics on http://127.0.0.1:8082; PORT=9000: another port
	@$(VENV)/bin/python -m pipeline ui --port $(PORT)

test: $(STAMP) ## all tests, and checks of style, types and imports; WORKERS=8: for more cores
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check .
	@$(COMPILE)
	@$(REWRITE) & rewrite=$$!; $(VENV)/bin/mypy && $(VENV)/bin/lint-imports --no-cache --no-logo && { wait $$rewrite; true; }
	@$(VENV)/bin/python -m pytest --numprocesses $(WORKERS) --dist worksteal

test-quick: $(STAMP) ## unit tests and a smoke test of the real commands, a minute at most
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check .
	@$(COMPILE)
	@$(VENV)/bin/python -m pytest --numprocesses logical --maxprocesses $(WORKERS) --dist worksteal \
	  -m "not slow" tests/end_to_end/test_smoke.py tests/unit

format: $(STAMP) ## format the code
	@$(VENV)/bin/ruff check --fix . ; $(VENV)/bin/ruff format .

bench: $(BENCH_STAMP) ## compare the speed with pandas, DuckDB, dlt and others, minutes; CASE="clean-csv": one case; SAVE=1: keep the result
	@$(BENCH_VENV)/bin/python -m benchmarks $(CASE) $(if $(SAVE),--save)

bench-full: $(BENCH_STAMP) ## the same with months of 24 million rows and slow peers, an hour
	@$(BENCH_VENV)/bin/python -m benchmarks --full $(CASE) $(if $(SAVE),--save)

endurance: $(STAMP) ## hours of kills, cut connections and hostile files, each checked; HOURS=0.5, SEED=7, CASE=kills
	@$(VENV)/bin/python -m endurance $(CASE) --hours $(HOURS) --seed $(SEED)

clean: ## remove the demo, the environments, the inputs of the benchmarks and the records of endurance
	rm -rf demo .bench .endurance $(VENV) $(BENCH_VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
