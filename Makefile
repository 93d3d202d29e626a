# Set-up, tests and everything around them. On a fresh machine `make demo` or `make test` is the only command needed.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help demo test coverage quick lint format docs bench findings clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check .
	touch $@

.venv/tested: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

demo: .venv/installed ## install, separate a real song into four stems, and write a page to listen to them
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps stempeg
	$(BIN)/python create_songs.py --page --stems all

test: .venv/tested ## install everything and run all tests
	$(BIN)/python -m pytest -n auto

coverage: .venv/tested ## the same, with a floor under the share of lines that tests reach
	$(BIN)/python -m pytest -n auto --cov --cov-report=term:skip-covered

quick: .venv/tested ## the tests that need no training, no browser and no subprocess, in under a minute
	$(BIN)/python -m pytest -n auto -m "not slow" -q tests/models tests/audio/test_resample.py tests/audio/test_tags.py tests/inference tests/training/test_losses.py tests/training/test_config.py tests/test_*.py

lint: .venv/tested ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/tested ## format and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: .venv/tested ## API pages from the docstrings, in build/docs
	$(BIN)/pdoc --docformat google --output-directory build/docs separation '!separation.apps' models

bench: .venv/tested ## speed and memory of separating
	$(BIN)/python -m benchmarks.separation

findings: ## run each finding about other people's software; needs PyPI
	@for script in findings/*.sh; do echo "== $$script"; bash "$$script" || exit 1; done

clean: ## remove the environment and everything built
	rm -rf .venv build *.egg-info
