# Every target does its own set-up: a fresh clone needs Python 3.11-3.13 and nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# A file's tests share what is costly to make, so a file stays in one process.
PARALLEL := -n auto --maxprocesses 4 --dist loadfile

.PHONY: help setup demo test test-all test-gpu bench lint format world lock clean

help: ## show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY) ## install the pinned packages into .venv

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $(READY)

demo: $(READY) ## the whole pipeline on the bundled avatar world; pictures in demo-out
	$(BIN)/deltaedit demo --out demo-out

test: $(READY) ## the test suite without the slow, GPU and speed tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q $(PARALLEL)

test-all: $(READY) ## everything that a CPU can run
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q $(PARALLEL) -m 'not gpu and not bench'

test-gpu: $(READY) ## what needs a CUDA device
	$(BIN)/python -m pytest -q -m gpu

bench: $(READY) ## ratios of speed, each measured within one run
	$(BIN)/python -m pytest -q -s -m bench tests/bench/bench_*.py

lint: $(READY) ## ruff, pyright and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: $(READY) ## rewrite the code as ruff wants it
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

world: $(READY) ## train the avatar world's models again (about two hours on two cores)
	$(BIN)/python -m flows.world --out world-out

lock: $(READY) ## resolve requirements.lock anew
	$(BIN)/uv pip compile --quiet pyproject.toml --extra dev --universal --python-version 3.11 \
		--no-header --no-annotate -o requirements.lock

clean: ## remove what the targets made
	rm -rf $(VENV) demo-out world-out bench-out
