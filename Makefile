# make quickstart, make test: each sets itself up in .venv with nothing but Python >= 3.11 and make on the machine.
# Paths in recipes are relative or quoted, so that the checkout may lie in a folder with spaces in its name.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LINKS := .editor

.PHONY: venv quickstart test test-oldest test-newest constraints lint typecheck editor links clean

venv: $(READY)

$(READY): setup.py pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

quickstart: $(READY)
	$(BIN)/python tools/quickstart.py

# As many processes as cores, but no more than four: a test with the full HaMeR takes 3 GB.
test: $(READY) lint typecheck
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# The tests with the oldest, and with the newest dependencies within setup.py's bounds, in .venv-oldest and .venv-newest;
# another Python: make test-newest PYTHON=python3.13; some files: make test-oldest TESTS="tests/test_export.py".
test-oldest: RESOLUTION := lowest-direct
test-newest: RESOLUTION := highest
test-oldest test-newest: test-%: $(READY)
	$(BIN)/uv venv --quiet --clear --python "$(PYTHON)" $(VENV)-$*
	$(BIN)/uv pip install --quiet --python $(VENV)-$* --resolution $(RESOLUTION) --editable '.[dev]'
	$(VENV)-$*/bin/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(TESTS)

# constraints.txt again: the newest versions within the bounds, for every platform and Python. `make test` proves them.
constraints: $(READY)
	UV_CUSTOM_COMPILE_COMMAND="make constraints" $(BIN)/uv pip compile setup.py --extra dev --extra docs --universal \
		--python-version 3.11 --upgrade --no-annotate --quiet --output-file constraints.txt

lint: $(READY)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .

# The folders beside fasthamer/ are its subpackages (see setup.py). Type checkers and IDEs do not follow setuptools'
# editable finder: they read the package through links in one folder, which is not under version control.
links:
	@rm -rf $(LINKS) && mkdir -p $(LINKS)/fasthamer
	@cd $(LINKS)/fasthamer && ln -s ../../fasthamer/* ../../configs ../../distill ../../students ../../teachers ../../tools .

typecheck: $(READY) links
	python="$$(cd "$(BIN)" && pwd)/python" && cd $(LINKS) && "$$python" -m mypy --config-file ../pyproject.toml -p fasthamer

# Again after a new file directly in fasthamer/; files in its folders appear by themselves.
editor: $(READY) links
	@echo "Python interpreter: $$(cd "$(BIN)" && pwd)/python"
	@echo "Import path:        $$(pwd)/$(LINKS)"
	@echo
	@echo 'VS Code (Pylance):  "python.analysis.extraPaths": ["$(LINKS)"] in .vscode/settings.json'
	@echo 'PyCharm:            mark $(LINKS) as Sources Root'
	@echo 'pyright:            "extraPaths": ["$(LINKS)"] in pyrightconfig.json'
	@echo 'mypy:               make typecheck'

clean:
	rm -rf build dist $(LINKS) .typecheck .pytest_cache .mypy_cache .ruff_cache *.egg-info
