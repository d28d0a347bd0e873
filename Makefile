# `make demo` and `make test` start from a bare checkout. They need only Python 3.10 to 3.13 and a
# package registry; exact spike times also need a C compiler, which makes other training faster.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml constraints.txt $(wildcard setup.py src/threefactor/*.h src/threefactor/clocked/*.c src/threefactor/events/kernels/*.[ch])
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: help demo test check interop smoke tables verify fuzz bench gpu clean

help:
	@echo "make demo    train both kinds of network on embedded data: tables, a picture, a page (about two minutes)"
	@echo "make test    run the linter, the type checker and all tests"
	@echo "make interop install the libraries whose networks the tests train and read; without, these tests are skipped"
	@echo "make smoke   make a tiny version of every table and figure of the papers; a browser checks the pages"
	@echo "make tables  write the tables of README, docs and results again, from the JSON in results/"
	@echo "make verify  train the three cheapest committed results again and compare (about a minute)"
	@echo "make fuzz    feed 100,000 damaged or malicious inputs to everything that reads (about half an hour)"
	@echo "make bench   measure time and memory of a training step, ours and those of installed peers"
	@echo "make gpu     all that only a GPU can tell, in eight minutes: is it right, how fast; needs PyTorch alone"
	@echo "make clean   remove the virtual environment and caches"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo-installed: $(SOURCES) | $(BIN)/python
	$(INSTALL) -e '.[report]'
	@touch $@

$(VENV)/dev-installed: $(SOURCES) | $(BIN)/python
	$(INSTALL) -e '.[dev]'
	@touch $@ $(VENV)/demo-installed

demo: $(VENV)/demo-installed
	$(BIN)/threefactor demo

check: $(VENV)/dev-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A worker for each core, up to four: each holds PyTorch and all that the tests left in memory.
test: check
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

interop: $(VENV)/dev-installed
	$(INSTALL) --no-deps -r requirements-interop.txt

# With SMOKE=--need-browser, a missing browser is an error.
smoke: $(VENV)/demo-installed
	rm -rf smoke
	$(BIN)/python tests/smoke.py smoke $(SMOKE)

tables: $(VENV)/demo-installed
	$(BIN)/python results/tables.py

# VERIFY="--cells 5 --data-dir DIR" trains more of them.
verify: $(VENV)/demo-installed
	$(BIN)/python results/verify.py $(VERIFY)

# FUZZ="--count 1000000 --seed 5" feeds other inputs.
fuzz: $(VENV)/demo-installed
	$(BIN)/python tests/fuzz.py $(FUZZ)

bench: $(VENV)/demo-installed
	$(BIN)/python benchmarks/clocked_step.py
	$(BIN)/python benchmarks/clocked_memory.py
	$(BIN)/python benchmarks/growth.py
	$(BIN)/python benchmarks/events_step.py

# With the Python that has PyTorch for CUDA, as it is: nothing is installed. GPU="--seconds 200" is shorter.
gpu:
	PYTHONPATH=src $(PYTHON) benchmarks/gpu.py --json gpu.json $(GPU)

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache
