# Every target prepares what it needs: a virtual environment in .venv with the versions of constraints.txt.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= runs/quickstart

# A strict editable install maps files one by one, so it is made again when a file comes or goes.
FILES := $(shell git ls-files '*.py' '*.yaml' 2>/dev/null | sort | cksum | cut -d' ' -f1)
STAMP := $(VENV)/.installed-$(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)-$(FILES)

.DEFAULT_GOAL := help
.PHONY: help demo test lint types tests soak format picture wheel clean

help: ## List the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1	/' | expand -t 18

demo: $(STAMP) ## Run the main job on scikit-learn's digits (about 6 minutes)
	@echo "==> kneepoint quickstart --out $(OUT)"
	@$(BIN)/kneepoint quickstart --out $(OUT)

test: lint types tests ## Lint, types, tests (under 10 minutes)
	@echo "==> all green"

lint: $(STAMP) ## Ruff, formatting included
	@echo "==> ruff"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(STAMP) ## mypy, strict, over everything
	@echo "==> mypy --strict"
	@$(BIN)/mypy -p kneepoint
	@$(BIN)/mypy tests examples benchmarks

tests: $(STAMP) ## The tests alone
	@echo "==> pytest"
	@$(BIN)/pytest -n 2 --dist loadfile

soak: $(STAMP) ## Long checks: every benchmark against its bars, the quickstart twice with one seed, 20 kills, scale (75 minutes)
	@echo "==> benchmarks/quickstart_bars.py"
	@$(BIN)/python benchmarks/quickstart_bars.py --runs 2
	@echo "==> benchmarks/conformance.py"
	@$(BIN)/python benchmarks/conformance.py --fresh
	@echo "==> benchmarks/quantization.py"
	@$(BIN)/python -m benchmarks.quantization --fresh
	@echo "==> benchmarks/candidates.py"
	@$(BIN)/python benchmarks/candidates.py
	@echo "==> benchmarks/overhead.py"
	@$(BIN)/python -m benchmarks.overhead
	@echo "==> benchmarks/kills.py"
	@$(BIN)/python -m benchmarks.kills
	@echo "==> benchmarks/scale.py"
	@$(BIN)/python -m benchmarks.scale

picture: $(STAMP) ## Draw docs/front.png from the run in OUT (needs the extra 'pictures' and a Chrome)
	@$(BIN)/kneepoint report $(OUT) --picture docs/front.png

format: $(STAMP) ## Format the code and sort imports
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

wheel: $(STAMP) ## Build the wheel into dist/
	@$(BIN)/python -m build --wheel

clean: ## Remove the environment and everything that was built
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache

$(VENV)/bin/python:
	@echo "==> creating $(VENV) with $(PYTHON)"
	@$(PYTHON) -c 'import sys; sys.exit("kneepoint needs Python 3.11 or newer, this is %s" % sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv $(VENV)

$(STAMP): | $(VENV)/bin/python
	@echo "==> installing kneepoint and its dependencies (constraints.txt) into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]' --config-settings editable_mode=strict
	@rm -f $(VENV)/.installed-*
	@touch $@
