# Two commands do everything: `make demo` and `make test`. Both create .venv once and reuse it.
# Needs: Python 3.11 to 3.13 with its venv module, make, and the system libraries that `make probe` looks for.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# The first Python of a supported version; choose another with `make demo PYTHON=/path/to/python3.12`.
PYTHON ?= $(shell for p in python3 python3.12 python3.11 python3.13; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && { echo $$p; break; }; done)
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Extra words for pip, e.g. a CPU-only torch: make demo PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
PIP_ARGS ?=
DEMO ?= runs/lift_demo
DEMO_EPISODES ?= 100
EVAL_EPISODES ?= 50
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Some containers forbid Python to keep compiled modules; every command and test process would compile them anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

.PHONY: demo
demo: probe $(STAMP)  ## demonstrations -> training -> 50 held-out episodes -> report, for robosuite's Lift
	$(BIN)/robot-policies doctor
	@echo "[1/3] recording $(DEMO_EPISODES) demonstrations of the scripted expert"
	$(BIN)/robot-policies generate task=lift episodes=$(DEMO_EPISODES) output=$(DEMO)/demos.zarr
	@echo "[2/3] training a Diffusion Policy on them"
	$(BIN)/robot-policies train +experiment=lift_demo dataset.path=$(DEMO)/demos.zarr output_dir=$(DEMO)/train
	@echo "[3/3] judging it on $(EVAL_EPISODES) seeds that no demonstration was recorded from"
	$(BIN)/robot-policies eval checkpoint=$(DEMO)/train episodes=$(EVAL_EPISODES) threads=1 output_dir=$(DEMO)/eval
	@echo "Done. The report, readable offline: $(DEMO)/eval/report.html"

.PHONY: test
test: probe lint  ## ruff, pyright and the test suite
	$(BIN)/python -m pytest -n auto --maxprocesses=8 --dist loadfile --no-loadscope-reorder

.PHONY: lint
lint: $(STAMP)  ## ruff (lint and format) and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

.PHONY: venv
venv: $(STAMP)  ## create .venv with everything the two commands need

# Off-screen rendering is checked before anything is downloaded, with whatever Python is there.
.PHONY: probe
probe: python-found
	@PYTHONPATH=sim "$(PYTHON)" -m robot_sim.system_libraries

.PHONY: python-found
python-found:
	@if [ -z "$(PYTHON)" ]; then echo "No Python 3.11 to 3.13 found; install one (Debian: apt-get install python3 python3-venv) or set PYTHON=..." >&2; exit 1; fi
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { echo "$(PYTHON) is $$("$(PYTHON)" -V); the commands here need Python 3.11 to 3.13" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) has no venv module; Debian: apt-get install python3-venv" >&2; exit 1; }

# PIP_CONSTRAINT also pins what pip uses to build the project itself.
$(STAMP): pyproject.toml constraints.txt requirements/sim-no-deps.txt | python-found
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install $(PIP_ARGS) -e ".[sim,lerobot,language,retrieval,viz,distributed,ros,rclpy,export,dev]"
	$(BIN)/python -m pip install $(PIP_ARGS) --no-deps -r requirements/sim-no-deps.txt
	@touch $@

.PHONY: constraints
constraints:  ## resolve constraints.txt anew (needs `uv`; review the diff before committing it)
	uv pip compile --universal --python-version 3.10 --all-extras --no-annotate --no-header --upgrade \
		--constraint requirements/constraints.in --output-file constraints.new pyproject.toml
	{ sed -n '/^#/p' constraints.txt; cat constraints.new; } > constraints.merged
	mv constraints.merged constraints.txt && rm constraints.new

.PHONY: clean
clean:  ## remove caches, builds and the demo's output; keeps .venv
	rm -rf $(DEMO) dist build .pytest_cache .ruff_cache .hypothesis
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -print0 | xargs -0 rm -rf
