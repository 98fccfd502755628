# One entry for people and CI. `make demo` and `make test` set everything up by themselves; they need Python 3.11+.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PYTEST_WORKERS ?= 2
# uv installs the locked set in 2 s where pip takes 25; it comes from its own lock, by pip.
UV     := VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet

.DEFAULT_GOAL := help
.PHONY: help demo test lint format proto generate manifests bench lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | awk -F'\t' '{printf "  make %-9s %s\n", $$1, $$2}'

# Two stamps: the demo needs no test tools. A changed lock or pyproject.toml installs again.
$(VENV)/.stamp-run: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "gpu-dra needs Python 3.11 or newer; set PYTHON=/path/to/python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.lock
	@$(UV) --require-hashes -r requirements.lock
	@$(UV) --no-deps --editable '.[login]'
	@touch $@

$(VENV)/.stamp-dev: $(VENV)/.stamp-run requirements-dev.lock
	@$(UV) --require-hashes -r requirements-dev.lock
	@touch $@

demo: $(VENV)/.stamp-run ## run the quickstart examples on an embedded cluster with simulated GPUs
	@$(BIN)/gpu-dra demo $(DEMO_ARGS)

test: $(VENV)/.stamp-dev ## run the tests
	@$(BIN)/python -m pytest -n $(PYTEST_WORKERS) $(TEST_ARGS)

lint: $(VENV)/.stamp-dev ## ruff, ruff format, mypy --strict, import-linter
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

format: $(VENV)/.stamp-dev ## format and fix what can be fixed
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

proto: $(VENV)/.stamp-dev ## generate api/kubelet/*_pb2.py from the .proto files
	@$(BIN)/python -m api.kubelet.generate

generate: $(VENV)/.stamp-dev ## generate CRDs, JSON schemas, the configuration reference and chart parts from api/
	@$(BIN)/python -m api.generate

manifests: $(VENV)/.stamp-dev ## render deploy/manifests from the chart; needs helm
	@$(BIN)/python -m tests.deploy.manifests

bench: $(VENV)/.stamp-dev ## measure; prints the table of docs/dev/performance.md
	@$(BIN)/python -m tests.bench

# `make lock UPGRADE=` keeps the versions that are there and only follows changes of pyproject.toml.
UPGRADE ?= --upgrade
COMPILE  = $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header

lock: $(VENV)/.stamp-dev ## resolve the dependencies of pyproject.toml into the lock files
	@echo uv | $(COMPILE) $(UPGRADE) - -o requirements-uv.lock
	@$(COMPILE) $(UPGRADE) pyproject.toml --extra login -o requirements.lock
	@$(COMPILE) $(UPGRADE) -c requirements.lock pyproject.toml --extra login --group dev -o requirements-dev.lock
	@$(COMPILE) $(UPGRADE) -c requirements.lock pyproject.toml -o requirements-image.lock

clean: ## remove what make made
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
