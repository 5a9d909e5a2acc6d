# Meterbook. `make` alone prints this help. The first `make demo` or `make test` sets everything up.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV ?= .venv
BIN := $(VENV)/bin
PYTHON ?= python3
UV_VERSION := 0.13.8
RIVALS := .venv-rivals/.installed
STAMP := $(VENV)/.requirements-installed
export PYTHONUNBUFFERED := 1
# Whatever the caller has set: tests start hundreds of processes, and each would compile all that it imports.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup demo test test-fast check format bench chaos up down status clean

help: ## Show this help
	@printf 'Meterbook: usage events in, paid invoices out.\n\n'
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(STAMP) ## Create .venv with the locked dependencies (runs by itself when needed)

$(STAMP): requirements.lock pyproject.toml deploy/setup.sh
	@PYTHON="$(PYTHON)" VENV="$(VENV)" UV_VERSION="$(UV_VERSION)" bash deploy/setup.sh
	@touch $(STAMP)

demo: $(STAMP) ## Run the main job on the embedded stack: usage in, paid invoices out
	@$(BIN)/meterbook demo

test: $(STAMP) ## Run every check and test (linters, types, units, real engines, end to end)
	@$(MAKE) --no-print-directory check
	@bash tests/in_two_parts.sh $(BIN)/pytest

test-fast: $(STAMP) ## Run the quick tests that need no engine, laws with few examples, on all cores
	@$(BIN)/pytest -q -n auto --dist worksteal -m "not integration and not e2e and not chaos and not slow" --hypothesis-profile=fast

check: $(STAMP) ## Lint, types, import rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(STAMP) ## Format the code
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

bench: $(STAMP) $(RIVALS) ## Measure the meter worker beside its rivals, in one run, as ratios; then rating
	@$(BIN)/python -m benchmarks.meter_worker
	@$(BIN)/python -m benchmarks.rating

$(RIVALS): benchmarks/rivals/requirements.lock
	@printf '==> installing the rivals into .venv-rivals\n'
	@$(PYTHON) -m venv .venv-rivals && .venv-rivals/bin/pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

chaos: $(STAMP) ## Run the fault table (SEED=42, ROWS="F5 F6", PLANT=no-dedupe, DOSE=smoke); see docs/reliability.md
	@$(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED)) $(if $(PLANT),--plant $(PLANT)) \
		$(if $(filter smoke,$(DOSE)),--smoke) $(if $(REPORT),--report $(REPORT)) $(ROWS)

up: $(STAMP) ## Start the embedded stack (Kafka, ClickHouse, Redis, PostgreSQL)
	@$(BIN)/meterbook up

down: $(STAMP) ## Stop the embedded stack
	@$(BIN)/meterbook down

status: $(STAMP) ## Show the embedded stack
	@$(BIN)/meterbook status

clean: ## Stop the stack and remove .venv and all data of the embedded stack
	@if [ -x $(BIN)/meterbook ]; then $(BIN)/meterbook down || true; fi
	@rm -rf $(VENV) .venv-rivals .meterbook demo-output
