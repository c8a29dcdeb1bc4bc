.DEFAULT_GOAL := app
PYTHON ?= python3
BIN := .venv/bin
CORES := $(shell nproc 2>/dev/null || echo 2)

.PHONY: app audit compare test test-unit test-alone lint setup chromium clean

.venv/app: requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check "$$(grep '^torch==' requirements.txt)"
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

.venv/dev: .venv/app requirements-dev.txt requirements-dev-nodeps.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements-dev-nodeps.txt
	touch $@

app: .venv/app
	$(BIN)/python app.py

compare: .venv/app
	$(BIN)/python -m peft_core compare

# Known vulnerabilities of what is installed; asks a service on the internet.
audit: .venv/dev
	$(BIN)/python -m scripts.audit

setup: .venv/dev chromium

chromium:
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null \
		|| { $$(test $$(id -u) = 0 || echo sudo) apt-get update -qq && $$(test $$(id -u) = 0 || echo sudo) apt-get install -y -qq chromium; }

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Unit tests in parallel over the cores, then what needs the machine for itself.
test: setup lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(CORES) -m "not browser and not reliability"
	$(BIN)/python -m pytest -m "browser or reliability"

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
