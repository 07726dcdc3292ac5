# Every target works as the first command in a fresh clone: it makes .venv when that is missing or out of date.
# Variables: PYTHON (which Python makes .venv), MODEL (for demo), ARGS (passed on to pytest, nbllm demo or the benchmark).

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && exit; done; echo python3)
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
# One process more than processors (tests/conftest.py), four at most. ARGS="-n 0" takes one, for a debugger, say.
PARALLEL := -n auto --maxprocesses 4 --dist worksteal
# Only as an argument of make: a MODEL that happens to be in the environment must not make the demo cost money.
DEMO_MODEL = $(if $(filter command,$(origin MODEL)),--model "$(MODEL)")

# Tests, demo and kernels start some hundred Pythons; each would compile nbllm anew where this is set, as in many containers.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo lab labextension test test-services test-engines test-browser test-lab test-promises bench check format notebooks lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: ## make .venv and install nbllm into it, from the lock file with hashes
	@$(PYTHON) scripts/setup_env.py

demo: setup ## run the quickstart notebook on a simulated model (MODEL=openai/gpt-4o-mini: on a real one)
	@$(BIN)/nbllm demo $(DEMO_MODEL) $(ARGS)

labextension: setup ## build the JupyterLab extension and link it into .venv (needs Node.js 20 and the npm registry; else says so)
	@$(BIN)/python scripts/labextension.py build

lab: setup ## open JupyterLab on the demo's result, or on the quickstart before there is one
	@$(BIN)/python scripts/labextension.py try
	$(BIN)/jupyter lab --notebook-dir=. $(firstword $(wildcard build/demo/00_quickstart.ipynb notebooks/00_quickstart.ipynb)) $(ARGS)

test: setup ## run the tests: no key, GPU, browser or network needed
	$(PYTEST) $(PARALLEL) --ignore=tests/engines --ignore=tests/browser --ignore=tests/services --ignore=tests/promises $(ARGS)

test-services: setup ## run several processes at once: redis-server (apt-get install redis-server), Celery workers, replicas, kill -9 by the hundred
	$(PYTEST) tests/services $(ARGS); code=$$?; [ $$code -eq 5 ] && echo "No services test was selected." || exit $$code

test-engines: setup ## run the road against a real vLLM and llama-server on this CPU (makes .venv-engine, several GB); kill a hundred kernels
	@$(BIN)/python scripts/engine_env.py
	KERNEL_KILLS=100 $(PYTEST) tests/engines tests/engines_room/test_ends_with_the_kernel.py $(ARGS); code=$$?; [ $$code -eq 5 ] && echo "No engine test was selected." || exit $$code

test-lab: setup ## build, lint, type-check and unit-test the JupyterLab extension, and the wheel that brings it (needs Node.js 20; else says so)
	@$(BIN)/python scripts/labextension.py build
	@$(BIN)/python scripts/labextension.py test
	$(PYTEST) tests/repository/test_labextension_wheel.py $(ARGS)

test-browser: setup ## run the notebook tests in a real JupyterLab in headless Chromium
	@$(BIN)/python scripts/labextension.py try
	@$(BIN)/python scripts/browser_env.py
	$(PYTEST) tests/browser $(ARGS); code=$$?; [ $$code -eq 5 ] && echo "No browser test was selected." || exit $$code

test-promises: setup ## prove what calibration promises: 1,000 draws of labels from each of many worlds whose truth is known
	$(PYTEST) $(PARALLEL) tests/promises $(ARGS)

bench: setup ## measure nbllm beside the raw libraries and its peers; docs/benchmarks.md says how to read it
	$(BIN)/python -m bench $(ARGS)

check: setup ## ruff, mypy --strict and the import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## let ruff fix what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

notebooks: setup ## run the example notebooks in place, so that their outputs are true
	$(BIN)/python scripts/run_notebooks.py

lock: ## resolve pyproject.toml again into requirements.lock (needs uv)
	uv pip compile pyproject.toml --extra service --extra service-redis --group dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header -o requirements.lock

clean: ## delete what the commands produced, the environments excepted
	rm -rf build dist nbllm/_labextension labextension/lib .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
