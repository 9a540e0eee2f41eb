# Two commands do all their own set-up: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test test-long soak reliability fuzz check bench gallery docs build clean
MINUTES ?= 30
FRAMES ?= 1000000
BUNDLES ?= 100000

demo: $(VENV)/sim.done  ## a robot adapts, its task changes, its policy is swapped: tables and demo.png
	$(BIN)/simrobot demo

test: $(VENV)/dev.done  ## the test suite, but for what is marked long
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not long"

test-long: $(VENV)/dev.done  ## the rest of it: variants of what `make test` shows once
	$(BIN)/python -m pytest -n 2 --dist worksteal -m long

soak: $(VENV)/dev.done  ## MINUTES=30 each of random events, of memory, of kills and a bad network
	ADAPTD_SOAK_MINUTES=$(MINUTES) $(BIN)/python -m pytest -s tests/test_state_machine.py
	$(BIN)/adaptd bench --scenarios soak,storm --sessions 200 --minutes $(MINUTES)

reliability: $(VENV)/dev.done  ## every fault that a test causes, and what was seen: docs/reliability.md
	$(BIN)/python -m pytest -m fault --write-reliability

fuzz: $(VENV)/dev.done  ## FRAMES=1000000 and BUNDLES=100000 made at random, and less of all else
	$(BIN)/python -m tests.fuzz --frames $(FRAMES) --bundles $(BUNDLES)

check: $(VENV)/dev.done  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

bench: $(VENV)/bench.done  ## speed: environment beside others, training, the daemon beside its floor
	$(BIN)/python -m benchmarks.environment
	$(BIN)/metatrain bench rl2 halfcheetah-vel
	$(BIN)/adaptd bench

gallery: $(VENV)/sim.done  ## a picture of every task family: docs/gallery.png
	$(BIN)/python -m sim.gallery

docs: $(VENV)/docs.done  ## the documentation as a site: build/site/index.html
	$(BIN)/python -m docs.site

build: $(VENV)/dev.done  ## the wheel, tried with base dependencies alone
	rm -rf dist build
	$(BIN)/python -m build --wheel --outdir dist
	rm -rf build/try && $(PYTHON) -m venv build/try
	build/try/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt dist/*.whl
	cd build && try/bin/adaptd verify halfcheetah-vel-rl2-gru --models ../exported_models

include systemd/install.mk

clean:  ## everything that was made here, except runs/
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/sim.done: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) -e '.[sim]'
	touch $@

$(VENV)/docs.done: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) -e '.[docs]'
	touch $@

$(VENV)/dev.done: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) -e '.[dev]'
	touch $@ $(VENV)/sim.done $(VENV)/docs.done

$(VENV)/bench.done: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) -e '.[bench]'
	touch $@ $(VENV)/dev.done $(VENV)/sim.done $(VENV)/docs.done
