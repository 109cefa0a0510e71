# make train   creates .venv, installs, runs the embedded recipe to its report
# make test    the same set-up if needed, then lint, types and tests
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= runs/orsta_tiny

.PHONY: train test lint types unit setup clean

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

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade-strategy only-if-needed --editable '.[train,data,dev]'
	touch $@

clean:
	rm -rf $(VENV)
