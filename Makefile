# Everything from a fresh clone: needs Python 3.11 or newer, make and git.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORES ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
CONFIG ?= config/config.yaml
comma := ,
PYTEST := $(BIN)/python -m pytest
SLURM := $(shell PATH=$$PATH:/usr/sbin:/usr/local/sbin command -v slurmctld 2>/dev/null)
space := $(subst ,, )
# models (torch), published (geometry as published), metrics (ST-LPIPS), hpc (SLURM, submitit, dask), pipelines, gpu; a comma between them.
EXTRAS ?= $(subst $(space),$(comma),$(strip $(if $(filter test test-cluster,$(MAKECMDGOALS)),published metrics pipelines,models) $(if $(SLURM),hpc)))
INSTALLED := $(VENV)/.installed$(if $(EXTRAS),-$(EXTRAS))
WHEELS := $(shell $(PYTHON) -m pip config get global.find-links 2>/dev/null)

.PHONY: demo border test test-slurm test-cluster lint setup clean

demo: setup  ## make the demo city and say where it is
	$(BIN)/snakemake --cores $(CORES) --configfile $(CONFIG)
	@$(BIN)/cityweave where --config $(CONFIG)

border: demo  ## does a height model depend on where tiles are cut? A second run with shifted tiles tells
	$(BIN)/snakemake --cores $(CORES) --configfile $(CONFIG) --config 'tiles={shift_m: half}' -- heights
	$(BIN)/cityweave border --config $(CONFIG)

test: setup  ## unit tests on all cores, then the ones that run the workflow, here and on a private SLURM cluster
	$(PYTEST) -n $(CORES) -m "not workflow and not slurm"
	$(PYTEST) -m "workflow"
	$(PYTEST) -rs -m "slurm and not slow"

test-slurm: setup  ## of these, the SLURM ones alone: spread, retry, a dead node, one tile again
	CITYWEAVE_NEEDS_SLURM=1 $(PYTEST) -m "slurm and not slow"

test-cluster: setup  ## everything on a private SLURM cluster: both tiers, every fault, the demo city; about an hour
	CITYWEAVE_NEEDS_SLURM=1 $(PYTEST) -v --durations=0 -m slurm

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/mypy
	$(BIN)/snakemake --lint --configfile $(CONFIG)

setup: $(INSTALLED)  ## the environment only

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"Python 3.11 or newer is needed, {sys.executable} is {v[0]}.{v[1]}; name one with make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt uv
	@# Compiled to bytecode once, here: where jobs may not write it (containers, PYTHONDONTWRITEBYTECODE), each would anew.
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python $(if $(WHEELS),--find-links $(WHEELS)) -c constraints.txt -e '.[workflow,dev$(if $(EXTRAS),$(comma)$(EXTRAS))]'
	@touch $@

clean:  ## remove the environment and everything that was computed
	rm -rf $(VENV) results .snakemake build src/*.egg-info
