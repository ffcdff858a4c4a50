# make help lists the targets. Options: PROFILE=name, JOBS=n, TORCH=requirement, PYTHON=interpreter.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?=
TORCH ?=
JOBS ?=
TIER ?= 0
SEEDS ?= 4
PROFILE ?=
export PYTHON TORCH

BIN := .venv/bin
CAMELSIGHT := $(BIN)/python -m camelsight

.PHONY: help setup maps paper evaluate verify reference test bench lint lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  Options: PROFILE=$$(ls profiles | sed 's/\.yaml//' | paste -sd'|')  JOBS=processes  TORCH=torch==2.13.0  PYTHON=python3"

setup: ## virtual environment, system packages and LaTeX; under 2 s when already done
	@bash code/setup.sh

maps: setup ## the maps alone: simulated, or fetched and checked where the profile names the real ones
	@$(CAMELSIGHT) maps $(if $(PROFILE),--profile $(PROFILE))

paper: setup ## every figure, every table and the PDF, for the active profile (or PROFILE=name)
	@$(CAMELSIGHT) paper $(if $(PROFILE),--profile $(PROFILE)) $(if $(JOBS),--jobs $(JOBS))

evaluate: setup ## a released checkpoint on the maps of a profile: WEIGHTS=file.pt SUITE=name [CASE=id] [PROFILE=name]
	@$(CAMELSIGHT).stages.evaluate --weights "$(WEIGHTS)" --suite "$(SUITE)" $(if $(CASE),--case $(CASE)) $(if $(PROFILE),--profile $(PROFILE))

verify: setup ## the referee's verdict; TIER=0 files and numbers, 1 given weights, 2 one case, 3 everything [PACK=file] [JSON=1]
	@$(CAMELSIGHT).stages.verify --tier $(TIER) $(if $(PACK),--pack "$(PACK)") $(if $(SUITE),--suite $(SUITE)) $(if $(CASE),--case $(CASE)) $(if $(JSON),--json)

reference: setup ## what verify compares with: every case trained from other seeds [SEEDS=4] [JOBS=processes]
	@$(CAMELSIGHT).stages.verify --reference $(SEEDS) $(if $(JOBS),--jobs $(JOBS))

bench: setup ## how fast, against a plain way of doing the same; ONLY=row for one of them
	@$(BIN)/python benchmarks/run.py $(ONLY)

test: setup ## lint, unit tests and the smoke profile from end to end
	@$(BIN)/ruff check code tests benchmarks
	@$(BIN)/ruff format --check code tests benchmarks
	@$(BIN)/python -m pytest

lock: setup ## mend requirements.lock after a change in pyproject.toml; torch and CUDA stay outside
	@$(BIN)/python -m pip install --quiet uv
	@PYTHONPATH=$$PWD/.venv/build $(BIN)/uv pip compile pyproject.toml --all-extras --universal \
	  --constraint .venv/torch.txt --override <(echo 'Cython>=3.1') \
	  --fork-strategy fewest --generate-hashes --no-build-isolation --no-header --no-annotate --quiet \
	  --output-file requirements.lock
	@awk '/^[a-z]/ {keep = !/^(torch|triton|nvidia-|cuda-)/} keep' requirements.lock >requirements.lock.part
	@mv requirements.lock.part requirements.lock

clean: ## remove results, figures, the PDF and what DVC keeps of them; .venv and finished maps stay
	@rm -rf results runs report paper/build paper/ms.pdf figures/*.pdf figures/*.png .dvc/cache data/partial
