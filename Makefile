# make discover   install into .venv, then generate, screen, relax and rank; files in results/
# make test       install with the test tools, then the tests (no network)
# make test-all   the same with the slow tests
# make lint       ruff and mypy
# make docs       the documentation into build/site (no network)
#
# PYTHON=python3.12          another interpreter (3.11 or newer)
# TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
#                            take torch from this index: a CPU build instead of CUDA's gigabytes
# ARGS="--num 16"            more options for `adit discover`
# JOBS=1                     tests in so many processes instead of one a core (at most 8)
# PREFILTER=                 every crystal is relaxed with CHGNet from the start

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX_URL ?=
ARGS ?=
JOBS ?= logical
PREFILTER ?= --prefilter mace-adit --prefilter-limit 0.2

BIN := $(VENV)/bin
HAS_TORCH = -c "import importlib.util as u, sys; sys.exit(u.find_spec('torch') is None)"

.PHONY: discover test test-all lint docs clean

discover: $(VENV)/.installed
	$(BIN)/adit discover --out results --overwrite $(if $(findstring --no-relax,$(ARGS)),,$(PREFILTER)) $(ARGS)

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n $(JOBS) --maxprocesses 8

test-all: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n $(JOBS) --maxprocesses 8 -m "slow or not slow"

lint: $(VENV)/.installed-test
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

docs: $(VENV)/.installed-test
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

clean:
	rm -rf $(VENV) build dist *.egg-info

# The stamps make a second run quick; a change of the dependencies installs again.
$(VENV)/.installed: pyproject.toml constraints.txt $(VENV)/.torch
	$(BIN)/python -m pip install -c $(VENV)/constraints.txt -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install -c $(VENV)/constraints.txt -e ".[test]"
	@touch $@

# A torch that is already there stays: the system's (the environment then sees its packages) or the
# environment's own. Only without one is the tested version installed.
$(VENV)/.torch: constraints.txt
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
	  { echo "Error: $(PYTHON) is older than 3.11; run: make PYTHON=python3.12"; exit 1; }
	@if [ ! -x $(BIN)/python ]; then \
	  if $(PYTHON) $(HAS_TORCH); then site=--system-site-packages; fi; \
	  echo "$(PYTHON) -m venv $$site $(VENV)"; $(PYTHON) -m venv $$site $(VENV); \
	fi
	@if $(BIN)/python $(HAS_TORCH); then \
	  echo "torch is installed already and stays"; \
	  grep -v '^torch==' constraints.txt > $(VENV)/constraints.txt; \
	else \
	  cp constraints.txt $(VENV)/constraints.txt; \
	  if [ -n "$(TORCH_INDEX_URL)" ]; then \
	    $(BIN)/python -m pip install --index-url "$(TORCH_INDEX_URL)" "$$(grep '^torch==' constraints.txt)"; \
	  fi; \
	fi
	@touch $@
