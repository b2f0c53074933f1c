# make demo   train, sample and evaluate on simulated CT images with real outlines; minutes on a CPU
# make test   every test
# make test-newest   every test, with the newest versions that setup.cfg allows instead of constraints.txt
# make lint   ruff, as it runs before a commit;  make format  lets ruff rewrite
# make clean  removes .venv, .venv-newest and caches; runs/ and data/ stay
#
# Each target makes .venv and installs by itself: Python 3.11 or newer and make are all it takes.
# Another interpreter: make test PYTHON=/path/to/python3.12

SHELL := /bin/sh
PYTHON ?= $(shell for name in python3 python3.11 python3.12 python3.13 python3.14 python; do \
  $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CONSTRAINTS := --constraint constraints.txt
DEMO := runs/demo

.DELETE_ON_ERROR:
.PHONY: demo test test-newest lint format clean

demo: $(STAMP)
	@echo "demo: training, sampling and evaluating into $(DEMO)"
	@$(BIN)/python -m ambdiff.main --config=configs/demo.py --workdir=$(DEMO)
	@echo "demo: open $(CURDIR)/$(DEMO)/evaluation/report.html"

test: $(STAMP)
	@echo "test: pytest"
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-newest:
	@$(MAKE) test VENV=.venv-newest CONSTRAINTS=

lint: $(STAMP)
	@echo "lint: ruff check, ruff format --check"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: $(STAMP)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:
	@echo "clean: removing $(VENV), .venv-newest, caches and build leftovers"
	@rm -rf $(VENV) .venv-newest .cache .pytest_cache .ruff_cache build dist *.egg-info
	@find ambdiff configs tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

$(STAMP): setup.py setup.cfg pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "make: ambdiff needs Python 3.11 or newer; python3 here is" \
	  "$$(python3 --version 2>&1 || echo missing). Install a newer one, or name it:" \
	  "make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: $(PYTHON) is" \
	  "not Python 3.11 or newer" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "make: $(PYTHON) lacks the venv" \
	  "module; on Debian and Ubuntu: sudo apt install python3-venv" >&2; exit 1; }
	@echo "install: $(VENV) with $$($(PYTHON) --version); about 1 GB, a minute or two"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check $(CONSTRAINTS) --editable '.[dev]'
	@touch $@
