# Everything runs inside .venv, which the first target that needs it makes.
PYTHON ?= python3
# A pinned torch: the one that the comparisons were made with.
TORCH ?= torch==2.13.0
VENV := .venv
RUN := $(VENV)/bin/python -m
INSTALL := $(RUN) pip install --quiet --disable-pip-version-check

.PHONY: setup test test-slow test-interop lint format clean

setup: $(VENV)/.installed

$(VENV)/.installed: setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 12) else "Python 3.11 or 3.12 is needed, found %d.%d: name one with PYTHON=" % v)'
	@echo "Installing into $(VENV) (about 2 GB, once) ..."
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable ".[test]"
	@touch $@

$(VENV)/.interop: $(VENV)/.installed
	@echo "Adding torch and transformers ..."
	$(INSTALL) "$(TORCH)"
	$(INSTALL) --editable ".[test,interop]"
	@touch $@

lint: $(VENV)/.installed
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy

format: $(VENV)/.installed
	$(RUN) ruff check --fix .
	$(RUN) ruff format .

test: lint
	$(RUN) pytest

test-slow: $(VENV)/.installed
	$(RUN) pytest -m "slow and not interop"

test-interop: $(VENV)/.interop
	$(RUN) pytest -m "interop"

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
