# make help lists the targets. Options: PROFILE=name, FULL=1, JOBS=n, JSON=1, TORCH=requirement, PYTHON=interpreter.
.DEFAULT_GOAL := help
ifneq ($(shell uname -s),Linux)
$(error camelsight runs on Linux; elsewhere use its container: docker build -t camelsight . (docs/containers.md))
endif
SHELL := /bin/bash
PYTHON ?=
TORCH ?=
JOBS ?=
TIER ?= 0
SEEDS ?= 8
PROFILE ?=
FULL ?=
JSON ?=
export PYTHON TORCH BASE TAG WHEELS PYTHON_VERSION
export CAMELSIGHT_PYTHONPATH := $(PYTHONPATH)
# What is set for other work would put foreign packages before ours, or change what Python does; as in code/pip.sh.
unexport PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONOPTIMIZE PYTHONWARNINGS PYTHONINSPECT PYTHONUSERBASE PYTHONPLATLIBDIR \
  PYTHONEXECUTABLE

BIN := .venv/bin
CAMELSIGHT := $(BIN)/python -P -m camelsight

AS_JSON = $(if $(JSON),--json)
OF_PROFILE = $(if $(PROFILE),--profile $(PROFILE))
# Only what is given to make itself: a shell may have a variable of such a name for other work.
given = $(if $(filter command,$(origin $(1))),$(if $($(1)),--$(2)='$($(1))'))
SLURM = $(if $(LAUNCH),--launch $(LAUNCH)) $(call given,PARTITION,partition) $(call given,ACCOUNT,account) \
  $(call given,QOS,qos) $(call given,CONSTRAINT,constraint) $(call given,MEMORY,memory) $(call given,SBATCH,sbatch) \
  $(call given,GPUS,gpus) $(call given,MINUTES,minutes) $(call given,CONCURRENCY,concurrency)

.PHONY: help setup doctor plan maps paper challenges status evaluate verify reference mcp dashboard test test-image rehearse bench \
  pack release image wheels lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  Options: PROFILE=$$(ls profiles/*.yaml | sed 's#.*/##; s/\.yaml//' | paste -sd'|')  FULL=1  JOBS=processes  JSON=1  TORCH=torch==2.13.0  PYTHON=python3"
	@echo "  With LAUNCH=slurm: PARTITION=name  ACCOUNT=name  GPUS=of a job  MINUTES=of a job  CONCURRENCY=jobs"
	@echo "    QOS=name  CONSTRAINT=name  MEMORY=node|cpu|none  SBATCH='more options of sbatch'"

setup: ## virtual environment, system packages and LaTeX; under 2 s when already done [WHEELS=folder] [TORCH=site]
	@bash code/setup.sh

wheels: ## what set-up needs on a machine without a network, in WHEELS=folder [PYTHON_VERSION=3.12] [TORCH=requirement]
	@TORCH= WHEELS= bash code/setup.sh
	@bash code/wheels.sh

doctor: ## whether this machine has what a run needs, and what to do where not [PROFILE=name] [JSON=1]
	@PYTHONPATH=code $(if $(wildcard $(BIN)/python),$(BIN)/python,$(or $(PYTHON),python3)) -m camelsight.commands.doctor \
	  $(OF_PROFILE) $(AS_JSON) $(if $(QUIET),--quiet)

plan: setup ## what make paper would run, why, and for how long, without running it [PROFILE=name] [FULL=1] [JSON=1]
	@$(CAMELSIGHT).commands.plan $(OF_PROFILE) $(if $(FULL),--full) $(if $(JOBS),--jobs $(JOBS)) $(AS_JSON)

rehearse: setup ## how long a profile takes here and whether it fits: every stage at its true shapes, on few maps [PROFILE=name] [JSON=1]
	@$(CAMELSIGHT).commands.rehearse $(OF_PROFILE) $(AS_JSON)

maps: setup ## the maps alone: simulated, or fetched and checked where the profile names the real ones
	@$(CAMELSIGHT) maps $(OF_PROFILE) $(AS_JSON)

paper: setup ## every figure, every table and the PDF, for the active profile (or PROFILE=name); FULL=1 adds robustness, LAUNCH=slurm a cluster
	@$(CAMELSIGHT) paper $(OF_PROFILE) $(if $(FULL),--full) $(if $(JOBS),--jobs $(JOBS)) $(SLURM) $(AS_JSON)

challenges: setup ## which of the profile's fields tell how much of the parameters, as a table; for two fields or more [JSON=1]
	@$(CAMELSIGHT) challenges $(AS_JSON)

status: ## how far each case is, while a run goes on and afterwards; [JSON=1]
	@$(CAMELSIGHT) status $(AS_JSON)

evaluate: setup ## a released checkpoint on the maps of a profile: WEIGHTS=file.pt; or SET=CV, the run's network on another set of CMD [SUITE=name] [CASE=id] [PROFILE=name]
	@$(CAMELSIGHT).stages.evaluate $(if $(WEIGHTS)$(if $(SET),,1),--weights "$(WEIGHTS)") $(if $(SET),--set $(SET)) $(if $(SUITE),--suite "$(SUITE)") $(if $(CASE),--case $(CASE)) $(OF_PROFILE) $(AS_JSON)

verify: setup ## the referee's verdict; TIER=0 files and numbers, 1 given weights, 2 one case, 3 everything [PACK=file or folder] [JSON=1]
	@$(CAMELSIGHT).referee.verify --tier $(TIER) $(if $(PACK),--pack "$(PACK)") $(if $(SUITE),--suite $(SUITE)) $(if $(CASE),--case $(CASE)) $(AS_JSON)

reference: setup ## what verify compares with: every case trained from several seeds [SEEDS=8] [JOBS=processes]
	@$(CAMELSIGHT).referee.verify --reference $(SEEDS) $(if $(JOBS),--jobs $(JOBS))

bench: setup ## how fast, against a plain way of doing the same; ONLY=row for one of them
	@$(BIN)/python benchmarks/run.py $(ONLY)

mcp: ## a server by which an assistant drives this folder, on standard input and output (docs/programs.md)
	@$(CAMELSIGHT).commands.mcp

dashboard: setup ## Optuna's dashboard on the searches as they stand, at localhost:8080, until Ctrl-C
	@$(CAMELSIGHT).stages.tune --dashboard

# The long ones go first, and among them last those that wait for the run of test_smoke.py.
LONG_TESTS := $(patsubst %,tests/test_%.py,smoke smoke_fields slurm rehearse plotting smoke_travel smoke_verdict)

test: setup ## lint, unit tests and the smoke profile from end to end
	@$(BIN)/ruff check code tests benchmarks
	@$(BIN)/ruff format --check code tests benchmarks
	@$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder $(LONG_TESTS) tests

pack: setup ## one archive of a finished run: weights, results, locks and their digests [PACK=file.tar] [JSON=1]
	@$(CAMELSIGHT).referee.pack $(if $(PACK),--output "$(PACK)") $(AS_JSON)

release: setup ## the same for a deposit: with an RO-Crate, licence and citation; after make verify [PACK=file.tar] [JSON=1]
	@$(CAMELSIGHT).referee.pack --release $(if $(PACK),--output "$(PACK)") $(AS_JSON)

image: ## the container image, with docker, podman or buildah [BASE=image] [TAG=name] [TORCH=requirement] [WHEELS=folder]
	@bash code/image.sh

test-image: setup ## the image with real docker: built, run, stopped, taken up again [BASE=image] [WHEELS=folder] [IMAGE=name]
	@IMAGE=$(IMAGE) $(BIN)/python -m pytest -q tests/image.py

lock: setup ## mend requirements.lock after a change in pyproject.toml; torch and CUDA stay outside
	@$(BIN)/python -m pip install --quiet uv
	@PYTHONPATH=$$PWD/.venv/build $(BIN)/uv pip compile pyproject.toml --all-extras --universal \
	  --constraint <($(BIN)/python -c 'from importlib.metadata import version; print("torch==" + version("torch").partition("+")[0])') \
	  --override <(echo 'Cython>=3.1') \
	  --fork-strategy fewest --generate-hashes --no-build-isolation --no-header --no-annotate --quiet \
	  --output-file requirements.lock
	@awk '/^[a-z]/ {keep = !/^(torch|triton|nvidia-|cuda-)/} keep' requirements.lock >requirements.lock.part
	@mv requirements.lock.part requirements.lock

clean: ## remove results, figures, the PDF and what DVC keeps of them; .venv and finished maps stay
	@rm -rf results runs report paper/build paper/ms.pdf figures/*.pdf figures/*.png figures/robustness .dvc/cache data/partial
