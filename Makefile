# Everything runs in a virtual environment inside the clone; the first call of any target makes it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow faults audit lint format docs setup clean

setup: $(VENV)/.ready

# The stamp is written last, so an interrupted installation is done again.
$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "ropewalk needs Python 3.10 or newer: make PYTHON=python3.12 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@

demo: setup
	$(BIN)/ropewalk demo

# Two processes, one thread each: the models are tiny, and threads that share a core wait for one another.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: setup
	$(BIN)/python -m pytest -m slow --timeout 1800

# Kills, starvation, lies, fuzzing, planted faults, load: about two hours; figures in docs/results/reliability.
faults: setup
	$(BIN)/python -m pip install --quiet --editable '.[fuzz]' || echo "no atheris here: the fuzzing is hypothesis alone"
	$(BIN)/python -m pytest -m faults --timeout 7200 tests/faults

# Known holes in the pinned dependencies; asks the network.
audit: setup
	$(BIN)/python -m pip install --quiet --editable '.[audit]'
	$(BIN)/pip-audit --requirement constraints.txt --no-deps --disable-pip

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# What the documents take from the code and from committed results.
docs: setup
	$(BIN)/python docs/tables.py
	$(BIN)/python docs/reliability_tables.py
	$(BIN)/python docs/speed_tables.py
	$(BIN)/python docs/reference.py

clean:
	rm -rf runs build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
