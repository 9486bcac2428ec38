# Each target makes .venv by itself; only Python 3.11 or newer and make are needed.
#   make demo    segment the MNI152 template (no PyTorch)       -> demo-out/
#   make test    lint, types and all tests
#   make lint    lint and types alone
#   make web     build the page of 'spanseg serve' from web/ (needs Node 20.19 or newer; the built page is committed)
#   make test-web   the tests that drive the page in a browser; fails where Chromium is missing
#   make validate-default DATA=… [MODEL=…]   judge a model folder as a default model; needs the data sets
#   make clean   remove what the others made, but for .venv
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint web test-web validate-default clean
.DELETE_ON_ERROR:

demo: $(VENV)/installed-demo
	$(BIN)/python examples/demo.py

test: lint
	$(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile

lint: $(VENV)/installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

web:
	cd web && npm ci && npm run build

test-web: $(VENV)/installed-test
	SPANSEG_WEB=required $(BIN)/pytest -m web

DATA ?= ../shared/data
MODEL ?= default
validate-default: $(VENV)/installed-test
	$(BIN)/python benchmarks/validate.py $(DATA) --model $(MODEL)

clean:
	rm -rf demo-out dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp inside .venv says which extra it holds; a change of the requirements installs again.
$(VENV)/installed-%: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$*]'
	touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "spanseg needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
