# make train   creates .venv, installs, runs the embedded recipe to its report
# make test    the same set-up if needed, then lint, types and tests
# make test-adapters   the tests that run verl's own code, in an environment of their own
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ADAPTERS := .venv-adapters
OUT ?= runs/orsta_tiny

.PHONY: train test lint types unit test-adapters setup clean

train: setup
	$(BIN)/vl train orsta_tiny --out $(OUT)

test: lint types unit

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/pyright

unit: setup
	$(BIN)/python -m pytest

test-adapters: $(ADAPTERS)/.installed
	$(ADAPTERS)/bin/python -c 'import verl, transfer_queue'
	$(ADAPTERS)/bin/python -m pytest tests/test_verifiers_adapters_verl.py tests/test_verifiers_cases.py

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade-strategy only-if-needed --editable '.[train,data,megabench,serve,dev]'
	touch $@

# verl wants older transformers and antlr4 than $(VENV) has: they lie above it, torch is shared.
$(ADAPTERS)/.installed: $(VENV)/.installed
	$(PYTHON) -m venv $(ADAPTERS)
	purelib='import sysconfig; print(sysconfig.get_path("purelib"))'; \
	below=$$($(BIN)/python -c "$$purelib"); above=$$($(ADAPTERS)/bin/python -c "$$purelib"); \
	echo "import site; site.addsitedir('$$below')" > "$$above/below.pth"
	$(ADAPTERS)/bin/python -m pip install --quiet --editable '.[verl]'
	touch $@

clean:
	rm -rf $(VENV) $(ADAPTERS)
