# The two commands that matter: `make run` and `make test`. Both set up everything they need.

VENV := .venv
BIN := $(VENV)/bin
# The first interpreter that runs and is new enough; `make PYTHON=/path/to/python` chooses another.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps
# Tests wait as well as work: three processes for two cores, of those that are ours, and at most sixteen. Each has a
# PostgreSQL of its own and makes and drops hundreds of databases, which takes a disk twice as long as memory, so that is
# where their files are if there is room.
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
TEST_PROCESSES = $(shell $(PYTHON) -c 'import os; print(min(16, (3 * ($(CORES)) + 1) // 2))')
MEMORY = $(shell grep -s ' /dev/shm ' /proc/mounts | grep -qv noexec && \
	df -Pk /dev/shm | awk 'NR == 2 && $$4 > 700000 * $(TEST_PROCESSES) {print $$6}')
UV_COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	--no-annotate --no-emit-index-url

.DEFAULT_GOAL := help
.PHONY: help install run test check pytest format lock bench bench-all audit wheel clean

help: ## Show this help
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

install: $(VENV)/installed ## Create .venv with what the gateway needs, pinned by hash

run: install ## Run the gateway on http://127.0.0.1:4000
	@$(BIN)/llmgateway serve

test: check pytest ## Everything: format, lint, types, import contracts, tests on SQLite and PostgreSQL

check: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/codespell
	$(BIN)/yamllint --strict .
	$(BIN)/mypy
	$(BIN)/lint-imports

pytest: $(VENV)/installed-dev
	$(if $(MEMORY),TMPDIR=$(MEMORY)) $(BIN)/pytest -n $(TEST_PROCESSES) --dist worksteal

format: $(VENV)/installed-dev ## Format the code and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: $(VENV)/installed-dev ## Resolve the dependencies anew into the requirements files
	$(PIP_INSTALL) uv
	$(UV_COMPILE) pyproject.toml -o requirements.txt
	$(UV_COMPILE) --group build -c requirements.txt -o requirements-build.txt
	$(UV_COMPILE) pyproject.toml --group dev -c requirements.txt -o requirements-dev.txt
	$(UV_COMPILE) pyproject.toml --all-extras -c requirements-dev.txt -o requirements-image.txt

bench: $(VENV)/installed-dev ## Measure the gateway beside bare relays (BENCH="--targets … --quick" for others)
	$(BIN)/python -m benchmarks.compare $(BENCH)

bench-all: $(VENV)/installed-dev ## Run every benchmark in short form
	$(BIN)/python -m benchmarks.all

audit: $(VENV)/installed-dev ## Look for known vulnerabilities in the pinned dependencies
	$(BIN)/pip-audit --require-hashes --disable-pip -r requirements-image.txt

wheel: $(VENV)/installed ## Build the wheel into dist/
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation -w dist .

clean: ## Remove .venv, caches and builds; the data directory stays
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

$(VENV)/installed: pyproject.toml requirements.txt requirements-build.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; give it by: make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "Installing into $(VENV) (once; takes about a minute) ..."
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) --require-hashes -r requirements.txt -r requirements-build.txt
	$(PIP_INSTALL) --no-build-isolation -e .
	@$(BIN)/python -m compileall -q proxy piccolo_migrations piccolo_conf.py
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed requirements-dev.txt
	@echo "Installing the test tools ..."
	$(PIP_INSTALL) --require-hashes -r requirements-dev.txt
	@touch $@
