# Every target sets up what it needs in .venv, with the versions pinned in constraints.txt.
# Another interpreter: make PYTHON=/path/to/python. Arguments for pytest: make test ARGS='-k metrics'.
# The newest releases instead of the pinned ones: make test VENV=.venv-newest CONSTRAINTS=

PYTHON ?=
DATA ?=
ARGS ?=
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
PIP_VERSION := 26.0
UV_VERSION := 0.13.9
BIN := $(VENV)/bin

# pip's -qq hides its warnings (among them package locations configured but absent); errors and the exit status stay.
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check --no-input --no-warn-script-location
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile
PINNED := $(INSTALL) $(if $(CONSTRAINTS),-c $(CONSTRAINTS))

.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test test-slow test-oldest lint docs tutorials clean

help:
	@echo 'make demo [DATA=pairs.h5mu]  pair, train and predict held-out donors; figures and tables in demo/'
	@echo 'make test [ARGS=...]         the fast tests, about 20 minutes on two cores'
	@echo 'make test-slow [ARGS=...]    the slow tests: clusters, large data, benchmark scripts, tutorials'
	@echo 'make test-oldest [ARGS=...]  the fast tests with the lowest versions that pyproject.toml allows'
	@echo 'make lint                    ruff and mypy'
	@echo 'make docs                    the documentation, in docs/_build/html'
	@echo 'make tutorials               run the tutorials anew, with their outputs'
	@echo 'make clean                   remove .venv and everything that was built'

demo: $(VENV)/runtime.stamp
	$(BIN)/python -m scdeconv.cli demo --force $(if $(DATA),'$(DATA)')

test: $(VENV)/test.stamp
	$(PYTEST) -m 'not slow' $(ARGS)

test-slow: $(VENV)/test.stamp
	$(PYTEST) -m slow $(ARGS)

# All bounds of pyproject.toml at once, on the lowest Python. UV_TORCH_BACKEND=cpu takes torch from its index of CPU builds.
test-oldest: .venv-oldest/oldest.stamp
	.venv-oldest/bin/python -m pytest -n 2 --dist loadfile -m 'not slow' $(ARGS)

.venv-oldest/oldest.stamp: pyproject.toml
	$(or $(PYTHON),python3.11) -m venv --clear .venv-oldest
	.venv-oldest/bin/python -m pip install -qq --disable-pip-version-check uv==$(UV_VERSION)
	.venv-oldest/bin/uv pip install -q --python .venv-oldest/bin/python --resolution lowest-direct -e . --group test
	@touch $@

lint: $(VENV)/lint.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# PYTHONWARNINGS is set, if to nothing, because Sphinx then keeps its deprecation notices for extension authors to itself.
docs: $(VENV)/doc.stamp
	rm -rf docs/_build docs/generated
	PYTHONWARNINGS= $(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html
	@echo 'Written: docs/_build/html/index.html'

tutorials: $(VENV)/test.stamp $(VENV)/doc.stamp
	$(BIN)/python docs/run_tutorials.py

clean:
	rm -rf .venv .venv-* .mypy_cache .pytest_cache .ruff_cache .coverage coverage.xml build demo dist docs/_build docs/generated
	find . -type d -name __pycache__ -prune -exec rm -rf {} +

# A broken or half-made .venv has no working pip and is made anew. Torch comes first and by its exact version: pip then
# takes a CPU build where one is configured, and nothing that follows can pull another.
$(VENV)/runtime.stamp: pyproject.toml $(CONSTRAINTS)
	@if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  found=; for python in $(or $(PYTHON),python3.11 python3); do \
	    if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo 'Expected Python 3.11 or newer, found none as $(or $(PYTHON),python3.11 or python3). Install it, or name it: make PYTHON=/path/to/python3.11' >&2; \
	    exit 1; \
	  fi; \
	  "$$found" -m venv --clear $(VENV); \
	fi
	@echo 'Installing packages into $(VENV) (a minute or two, once) ...'
	@$(INSTALL) pip==$(PIP_VERSION)
	@$(if $(CONSTRAINTS),$(PINNED) "$$(grep '^torch==' $(CONSTRAINTS))")
	@$(PINNED) -e .
	@touch $@

$(VENV)/%.stamp: $(VENV)/runtime.stamp
	@$(PINNED) --group $*
	@touch $@
