.DEFAULT_GOAL := app
PYTHON ?= python3
BIN := .venv/bin
CORES := $(shell nproc 2>/dev/null || echo 2)

.PHONY: app compare test test-unit test-alone lint setup chromium clean soak

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

# 200 real runs in a row on the real page; its memory every 10 runs.
soak: .venv/app
	$(BIN)/python scripts/soak.py
