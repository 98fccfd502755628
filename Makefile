# One entry for people and CI. `make demo` and `make test` set everything up by themselves; they need Python 3.11+.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# More than there are cores: half of the time tests wait. What is played in full computes, and kills by the clock.
PYTEST_WORKERS ?= 6
LONG_WORKERS ?= 4
# uv installs the locked set in 2 s where pip takes 25; it comes from its own lock, by pip.
UV     := VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet

# Tests, demos and clusters start hundreds of Pythons: where bytecode is forbidden, each would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test test-long test-rest test-kills lint format proto generate manifests bench bench-packing lock clean \
	programs image cluster cluster-down e2e e2e-manifests e2e-mig e2e-fractions e2e-lifecycle bench-e2e bench-peer bench-packing-e2e kind kind-down kind-e2e gpu-check

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | awk -F'\t' '{printf "  make %-13s %s\n", $$1, $$2}'

# Two stamps: the demo needs no test tools. A changed lock or pyproject.toml installs again.
$(VENV)/.stamp-run: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "gpu-dra needs Python 3.11 or newer; set PYTHON=/path/to/python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-uv.lock
	@$(UV) --require-hashes -r requirements.lock
	@$(UV) --no-deps --editable .
	@touch $@

$(VENV)/.stamp-dev: $(VENV)/.stamp-run requirements-dev.lock
	@$(UV) --require-hashes -r requirements-dev.lock
	@touch $@

demo: $(VENV)/.stamp-run ## run the quickstart examples on an embedded cluster with simulated GPUs
	@$(BIN)/gpu-dra demo $(DEMO_ARGS)

test: $(VENV)/.stamp-dev ## run the tests
	@$(BIN)/python -m pytest -n $(PYTEST_WORKERS) $(TEST_ARGS)

# Where make test plays a share (tests/test_long_runs.py looks that each is named); gpu-check's tests then have whole machines.
LONG_TESTS := tests/allocator tests/cli/convert/test_properties.py tests/contract/test_allocator.py \
	tests/controller/test_overlap.py tests/crash tests/devices/test_mig_fit.py tests/devices/test_mig_layout.py \
	tests/devices/test_packing_benchmark.py tests/e2e/test_gpu_check.py tests/kubelet_plugin/kinds/mig tests/kubelet_plugin/prepare/test_checkpoint_format.py \
	tests/property tests/simulation/nvml_c/test_together.py tests/slices/test_diff.py tests/test_run_guard.py
test-long: $(VENV)/.stamp-dev ## run the tests that take a share of their random runs and sweeps in make test, in full
	@GPU_DRA_LONG_TESTS=1 GPU_DRA_KILL_ROUNDS=50 $(BIN)/python -m pytest -n $(LONG_WORKERS) \
		$(LONG_TESTS)

test-rest: $(VENV)/.stamp-dev ## run the tests that test-long does not
	@$(BIN)/python -m pytest -n $(PYTEST_WORKERS) $(addprefix --ignore=,$(LONG_TESTS)) $(TEST_ARGS)

ROUNDS ?= 500
test-kills: $(VENV)/.stamp-dev ## kill plugin, supervisor and MPS daemons at random points, 500 times; root, a quarter of an hour
	@GPU_DRA_KILL_ROUNDS=$(ROUNDS) $(BIN)/python -m pytest -n $(LONG_WORKERS) tests/crash/test_mps_kills.py

lint: $(VENV)/.stamp-dev ## ruff, ruff format, mypy --strict, import-linter
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache

format: $(VENV)/.stamp-dev ## format and fix what can be fixed
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

proto: $(VENV)/.stamp-dev ## generate api/*/*_pb2.py from the .proto files
	@$(BIN)/python -m api.protos

generate: $(VENV)/.stamp-dev ## generate CRDs, JSON schemas, the configuration reference and chart parts from api/
	@$(BIN)/python -m api.generate

manifests: $(VENV)/.stamp-dev ## render deploy/manifests from the chart; needs helm
	@$(BIN)/python -m tests.deploy.manifests

bench: $(VENV)/.stamp-dev ## measure a plugin and a controller without a kubelet
	@$(BIN)/python -m tests.bench

bench-packing: $(VENV)/.stamp-dev ## play claims for parts of GPUs; prints the tables of docs/dev/packing.md
	@$(BIN)/python -m tests.bench.packing $(BENCH_ARGS)

# `make lock UPGRADE=` keeps the versions that are there and only follows changes of pyproject.toml.
UPGRADE ?= --upgrade
COMPILE  = $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header
# 88 MB, 128 with bytecode, that only people's kubeconfigs need; what nothing else needs goes with it.
NOT_IN_IMAGE := kubernetes

lock: $(VENV)/.stamp-dev ## resolve the dependencies of pyproject.toml into the lock files
	@echo uv | $(COMPILE) $(UPGRADE) - -o requirements-uv.lock
	@$(COMPILE) $(UPGRADE) pyproject.toml -o requirements.lock
	@$(COMPILE) $(UPGRADE) -c requirements.lock pyproject.toml --group dev -o requirements-dev.lock
	@echo $(NOT_IN_IMAGE) | $(COMPILE) $(UPGRADE) -c requirements.lock --excludes /dev/stdin pyproject.toml -o requirements-image.lock

gpu-check: $(VENV)/.stamp-run ## on a machine with an NVIDIA GPU: where does it differ from its simulation; changes nothing
	@$(BIN)/python -m e2e.gpu_check $(CHECK_ARGS)

# -- real clusters: root, Linux and Go. K8S is a minor, MACHINE one of `gpu-dra machine list`. --------------------------
K8S     ?= 1.37
MACHINE ?= a100-sxm4-40gb
NODES   ?= 1
CHOSEN   = --kubernetes $(K8S) --machine $(MACHINE) --nodes $(NODES)

programs: $(VENV)/.stamp-dev ## build what real clusters run, from Go modules, into ~/.cache/gpu-dra
	@$(BIN)/python -m e2e.clusters.programs

image: $(VENV)/.stamp-dev ## the driver's image without Docker, as an OCI archive
	@$(BIN)/python -m e2e.images.driver

cluster: $(VENV)/.stamp-dev ## a real cluster on this machine with the driver; K8S=1.34 MACHINE=h100-sxm5-80gb NODES=3
	@$(BIN)/python -m e2e.try_it local $(CHOSEN)

cluster-down: $(VENV)/.stamp-dev ## take it away again, all of it
	@$(BIN)/python -m e2e.clusters.local down

e2e: $(VENV)/.stamp-dev ## the suite on a real cluster of its own; K8S=1.34
	@$(BIN)/python -m pytest e2e/suites --cluster local $(CHOSEN) -rs $(TEST_ARGS)

e2e-manifests: $(VENV)/.stamp-dev ## your manifests on a real cluster of its own, as they are; FILES="a.yaml b.yaml"
	@$(BIN)/python -m pytest e2e/suites/test_examples.py --cluster local $(CHOSEN) -rs \
		$(addprefix --manifest ,$(FILES)) $(TEST_ARGS)

# Partitioned on demand: Hopper or newer.
e2e-mig: $(VENV)/.stamp-dev ## MIG on a real cluster of its own with simulated H100s; K8S=1.34
	@$(BIN)/python -m pytest e2e/suites/test_mig.py e2e/suites/test_mps.py e2e/suites/test_examples.py \
		e2e/suites/test_fraction_rounding.py e2e/suites/test_published.py e2e/suites/test_takeover.py \
		e2e/suites/test_nvidia_programs.py \
		--cluster local --kubernetes $(K8S) --machine h100-sxm5-80gb --cluster-name mig -rs $(TEST_ARGS)

e2e-fractions: $(VENV)/.stamp-dev ## fractions of GPUs and every fence of them on a real cluster of its own; K8S=1.34
	@$(BIN)/python -m pytest e2e/suites/test_fractions.py e2e/suites/test_fractions_enforced.py \
		e2e/suites/test_fraction_rounding.py --cluster local $(CHOSEN) --cluster-name fractions -rs $(TEST_ARGS)

e2e-lifecycle: $(VENV)/.stamp-dev ## that a real cluster leaves nothing behind, however it ends
	@$(BIN)/python -m pytest e2e/lifecycle $(TEST_ARGS)

bench-e2e: $(VENV)/.stamp-dev ## measure pods and restarts on a real node
	@$(BIN)/python -m e2e.bench --kubernetes $(K8S)

bench-packing-e2e: $(VENV)/.stamp-dev ## what packing across GPUs costs on a real control plane; BENCH_ARGS="--sizes 1,10 --quick"
	@$(BIN)/python -m e2e.bench_packing --kubernetes $(K8S) $(BENCH_ARGS)

# PEER: the path of a gpu-kubelet-plugin; CASES: some of those that `python -m e2e.bench_peer --help` lists.
bench-peer: ROUNDS = 3
bench-peer: $(VENV)/.stamp-dev ## a driver with NVIDIA's command line and ours in one run; PEER=program CASES=prepare,idle
	@$(BIN)/python -m e2e.bench_peer --kubernetes $(K8S) --rounds $(ROUNDS) --cases "$(CASES)" \
		$(if $(PEER),--peer "$(PEER)")

kind: $(VENV)/.stamp-dev ## a kind cluster with the driver, with your Docker or without any
	@$(BIN)/python -m e2e.try_it kind --machine $(MACHINE)

kind-down: $(VENV)/.stamp-dev ## delete it, and everything started for it
	@$(BIN)/python -m e2e.clusters.kind down

KIND_SUITE ?= e2e/suites
kind-e2e: $(VENV)/.stamp-dev ## the suite on a kind cluster of its own
	@$(BIN)/python -m pytest $(KIND_SUITE) --cluster kind --machine $(MACHINE) -rs $(TEST_ARGS)

clean: ## remove what make made
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
