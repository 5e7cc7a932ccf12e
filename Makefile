# Every target sets up what it needs; see .ci/setup.
.DEFAULT_GOAL := help
.PHONY: help setup test check demo bench fuzz fuzz-input chaos lab lab-down plots fmt clean

PYTHON_BIN := .venv/bin
BESIDE := -n 2 --dist loadfile --no-loadscope-reorder
SHELL_SCRIPTS := $(wildcard deploy/slurm/*.d/* deploy/slurm/*.sh) .ci/run .ci/setup

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: ## installs what tests and lab need (as root on Debian) and makes .venv
	@.ci/setup test

test: check ## all checks and all tests; ARGS goes to pytest
	$(PYTHON_BIN)/python -m pytest $(BESIDE) $(ARGS)

check: setup ## lint and types alone
	$(PYTHON_BIN)/ruff check .
	$(PYTHON_BIN)/ruff format --check .
	$(PYTHON_BIN)/mypy
	@if command -v shellcheck >/dev/null; then echo shellcheck $(SHELL_SCRIPTS); shellcheck $(SHELL_SCRIPTS); \
	else echo 'not run here: shellcheck - not installed on this machine'; fi

demo: ## the real agent on simulated GPUs, drawn live; needs no GPU, Slurm or root
	@.ci/setup run
	$(PYTHON_BIN)/wattkeeper demo $(ARGS)

bench: setup ## the numbers to hold, measured; fails beyond them
	$(PYTHON_BIN)/python -m tests.bench $(ARGS)

fuzz: setup ## damaged state files against the simulator under sanitizers; N= how many, ARGS='--seed S' again
	$(PYTHON_BIN)/python -m tests.hostile $(or $(N),20000) $(ARGS)

fuzz-input: setup ## bytes at all that reads what others write; T= targets, S= seconds for each
	$(PYTHON_BIN)/python -m pip install -q --group fuzz || echo 'fuzz-input: without atheris, by chance'
	$(PYTHON_BIN)/python -m tests.fuzz $(T) --seconds $(or $(S),60) $(ARGS)

chaos: setup ## kills agent and actuator at every named place while jobs come and go; N= how often, ARGS='--seed S' again
	$(PYTHON_BIN)/python -m tests.chaos --kills $(or $(N),1000) $(ARGS)

lab: setup ## brings up a real Slurm cluster with an agent on every node, and says how to use it
	@$(PYTHON_BIN)/python -m tests.lab up $(ARGS)

lab-down: ## ends that cluster
	@$(PYTHON_BIN)/python -m tests.lab down

plots: setup ## draws the plots and the table of docs/simulator.md anew
	$(PYTHON_BIN)/python -m pip install -q --group plots
	$(PYTHON_BIN)/python -m tests.fit

fmt: setup ## formats the code
	$(PYTHON_BIN)/ruff format .
	$(PYTHON_BIN)/ruff check --fix .

clean: ## removes what tools left behind, but not .venv
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find daemon tests -name __pycache__ -prune -exec rm -rf {} +
