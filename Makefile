# Each target sets up what it needs in .venv, on a machine that has only make and Python 3.11 or later.
#
#   make run      serve the page and the API; prints the URL
#   make quick    the tests without a browser and without killing processes, under a minute
#   make test     checks, then every test (ARGS="-k push" picks some)
#   make check    lint, format and types
#   make format   let the linter and the formatter fix what they can
#   make screenshots   take the pictures in docs/
#   make soak     minutes of random operations and disasters; prints what was lost and doubled

NEW_ENOUGH = import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c '$(NEW_ENOUGH)' 2>/dev/null && echo $$p && break; done)
BIN = .venv/bin

.PHONY: run quick test check format screenshots soak

run: .venv/run.stamp
	@exec $(BIN)/python app.py

quick: .venv/develop.stamp
	@$(BIN)/pytest -q -n 2 -m "not slow" --ignore tests/page $(ARGS)

# The tests run after a failed check too, so that one run shows everything.
test: .venv/develop.stamp
	@$(MAKE) -s check && checked=0 || checked=1; $(BIN)/pytest $(ARGS) && exit $$checked

check: .venv/develop.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/develop.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

screenshots: .venv/develop.stamp
	$(BIN)/python -m tests.page.screenshots

soak: .venv/develop.stamp
	MODEL_EXAMPLES=$${MODEL_EXAMPLES:-300} $(BIN)/pytest -q --timeout 0 tests/broker/test_model.py
	$(BIN)/python -m tests.ledger

.venv/made.stamp:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed; name it with make PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv .venv
	@touch $@

.venv/run.stamp: requirements.txt .venv/made.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/develop.stamp: requirements-dev.txt .venv/run.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@
