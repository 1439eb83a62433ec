# Every target sets up what it needs in .venv, with the versions pinned in constraints.txt.
# Another interpreter: make PYTHON=/path/to/python. Arguments for pytest: make test ARGS="-m 'not slow'".

PYTHON ?=
DATA ?=
ARGS ?=
PIP_VERSION := 26.0
BIN := .venv/bin

# pip's -qq hides its warnings (among them package locations configured but absent); errors and the exit status stay.
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check --no-input --no-warn-script-location

.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test lint docs tutorials clean

help:
	@echo 'make demo [DATA=pairs.h5mu]  pair, train and predict held-out donors; figures and tables in demo/'
	@echo 'make test [ARGS=...]         the test suite'
	@echo 'make lint                    ruff and mypy'
	@echo 'make docs                    the documentation, in docs/_build/html'
	@echo 'make tutorials               run the tutorials anew, with their outputs'
	@echo 'make clean                   remove .venv and everything that was built'

demo: .venv/runtime.stamp
	$(BIN)/python -m scdeconv.demo $(if $(DATA),'$(DATA)')

test: .venv/test.stamp
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

lint: .venv/lint.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# PYTHONWARNINGS is set, if to nothing, because Sphinx then keeps its deprecation notices for extension authors to itself.
docs: .venv/doc.stamp
	rm -rf docs/_build docs/generated
	PYTHONWARNINGS= $(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html
	@echo 'Written: docs/_build/html/index.html'

tutorials: .venv/test.stamp
	$(BIN)/python docs/run_tutorials.py

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .coverage coverage.xml build demo dist docs/_build docs/generated
	find . -type d -name __pycache__ -prune -exec rm -rf {} +

# A broken or half-made .venv has no working pip and is made anew. Torch comes first and by its exact version: pip then
# takes a CPU build where one is configured, and nothing that follows can pull another.
.venv/runtime.stamp: pyproject.toml constraints.txt
	@if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  found=; for python in $(or $(PYTHON),python3.11 python3); do \
	    if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo 'Expected Python 3.11 or newer, found none as $(or $(PYTHON),python3.11 or python3). Install it, or name it: make PYTHON=/path/to/python3.11' >&2; \
	    exit 1; \
	  fi; \
	  "$$found" -m venv --clear .venv; \
	fi
	@echo 'Installing the pinned packages into .venv (a minute or two, once) ...'
	@$(INSTALL) pip==$(PIP_VERSION)
	@$(INSTALL) -c constraints.txt "$$(grep '^torch==' constraints.txt)"
	@$(INSTALL) -c constraints.txt -e .
	@touch $@

.venv/%.stamp: .venv/runtime.stamp
	@$(INSTALL) -c constraints.txt --group $*
	@touch $@
