# `make demo` and `make test` are enough: both prepare .venv first. Needed: make, git, Python 3.10 or later with venv.

# The build of torch to install; TORCH= leaves it out. After a change: make -B setup TORCH=...
TORCH ?= torch==2.13.0
# Python 3.11 where it runs, else python3.
PYTHON ?= $(shell for p in python3.11 python3; do \
	$$p -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && { echo $$p; break; }; done)
# More arguments for pytest, such as ARGS="-k merge".
ARGS ?=
# Processes that share the tests.
JOBS ?= 2

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-done

.PHONY: setup demo test test-slow test-wheel lint types format docs docs-text clean

setup: $(STAMP)

$(STAMP): pyproject.toml setup.cfg Makefile
	@test -n "$(PYTHON)" || { echo "no Python 3.10 or later with venv found; set PYTHON=" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(TORCH) -e '.[test]'
	touch $@

demo: $(STAMP)
	$(BIN)/python tutorials/demo.py

test: $(STAMP)
	$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile $(ARGS)

test-slow: $(STAMP)
	$(BIN)/python -m pytest -q -m slow $(ARGS)

# The wheel in clean environments, one for each Python from 3.10 to 3.13 that is here.
test-wheel:
	.ci/test-wheel

lint: $(STAMP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(STAMP)
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(STAMP)
	$(BIN)/python -m pip install --quiet -e '.[docs]'
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

# The same without running the tutorials: what CI checks.
docs-text: $(STAMP)
	$(BIN)/python -m pip install --quiet -e '.[docs]'
	$(BIN)/python -m sphinx -q -W --keep-going -D plot_gallery=0 -b html docs docs/_build/text

clean:
	rm -rf docs/_build docs/tutorials docs/generated docs/sg_execution_times.rst build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
