# make quickstart, make test: each sets itself up in .venv with nothing but Python >= 3.11 and make on the machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: venv quickstart test lint typecheck clean

venv: $(READY)

$(READY): setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $(READY)

quickstart: $(READY)
	$(BIN)/python tools/quickstart.py

test: $(READY) lint typecheck
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .

# mypy does not follow setuptools' editable finder, so it reads the packages through links inside one folder.
typecheck: $(READY)
	@rm -rf .typecheck && mkdir -p .typecheck/fasthamer
	@ln -s $(CURDIR)/fasthamer/* $(foreach part,configs distill students teachers tools,$(CURDIR)/$(part)) .typecheck/fasthamer/
	cd .typecheck && ../$(BIN)/python -m mypy --config-file ../pyproject.toml -p fasthamer

clean:
	rm -rf build dist .typecheck .pytest_cache .mypy_cache .ruff_cache *.egg-info
