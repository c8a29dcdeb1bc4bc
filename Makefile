.DEFAULT_GOAL := app
PYTHON ?= python3
BIN := .venv/bin
CORES := $(shell nproc 2>/dev/null || echo 2)

.PHONY: app audit compare test test-unit test-alone lint setup chromium clean soak

NEEDED := RankLab needs Python 3.11, 3.12 or 3.13
HINT := name one with make app PYTHON=/path/to/python
VERSION_FITS := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))

.venv/bin/python:
	@command -v "$(PYTHON)" >/dev/null || { echo "$(NEEDED), and there is no $(PYTHON) here; $(HINT)." >&2; exit 2; }
	@"$(PYTHON)" -c "$(VERSION_FITS)" || { echo "$(NEEDED), and $(PYTHON) is $$("$(PYTHON)" -V 2>&1); $(HINT)." >&2; exit 2; }
	@"$(PYTHON)" -c "import venv, ensurepip" 2>/dev/null \
		|| { echo "$(PYTHON) cannot make a .venv: it lacks ensurepip; on Debian and Ubuntu install python3-venv." >&2; exit 2; }
	"$(PYTHON)" -m venv .venv

.venv/app: requirements.txt | .venv/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check "$$(grep '^torch==' requirements.txt)"
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

.venv/dev: .venv/app requirements-dev.txt requirements-dev-nodeps.txt requirements-ray.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-ray.txt
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

# Unit tests in parallel over the cores, neighbours on one of them: they share what was trained for them. Then the browser's
# two groups, a server each, beside each other; then the reliability tests, two files at a time.
test: setup lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(CORES) --dist worksteal -m "not browser and not reliability"
	$(BIN)/python -m pytest -n 2 tests/browser
	$(BIN)/python -m pytest -n 2 -m reliability tests/reliability tests/runs tests/training

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis

# 200 real runs in a row on the real page; its memory every 10 runs.
soak: .venv/app
	$(BIN)/python scripts/soak.py
