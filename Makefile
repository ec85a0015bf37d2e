# `make run` and `make test` set up what they need; `make help` lists all targets.

PYTHON ?= python3
VENV := .venv
MANAGE := $(VENV)/bin/python manage.py
# A worker for each processor. `-n` is not used, because its workers would be without `-X dev`.
PARALLEL := --dist worksteal --tx '$(shell getconf _NPROCESSORS_ONLN)*popen//python=$(VENV)/bin/python -X dev'

.DEFAULT_GOAL := help
.PHONY: help run fix quick test faults bench scale matrix check secrets lock clean

help: ## List the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

run: $(VENV)/installed ## Set up what is missing, then serve on PORT (3000) with hot reload
	@$(MANAGE) setup
	@exec env -u WEB_CONCURRENCY $(VENV)/bin/gunicorn --reload --workers 1

fix: $(VENV)/installed ## Format, and correct what ruff can
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

quick: $(VENV)/installed ## Run the tests of the modules without servers, browsers and commits
	@$(VENV)/bin/pytest -n logical --dist worksteal --ignore=tests \
		-m "not (slow or heavy or django_db(transaction=True))" $(ARGS)

test: $(VENV)/installed ## Set up what is missing, then run the suite (ARGS=accounts: a part, without coverage)
ifdef ARGS
	@$(VENV)/bin/python -X dev -m pytest $(PARALLEL) $(ARGS)
else
	@$(VENV)/bin/coverage erase
	@$(VENV)/bin/python -X dev -m coverage run -m pytest $(PARALLEL)
	@$(VENV)/bin/coverage combine --quiet
	@$(VENV)/bin/coverage report $(if $(and $(shell command -v redis-server),$(shell command -v chromium),$(shell command -v node),$(filter 0,$(shell id -u))),,--fail-under=0)
endif

faults: $(VENV)/installed ## Break PostgreSQL, Redis, workers and clocks under load, and record the results
	@$(VENV)/bin/python -m pytest tests/faults -m "" --table docs/reliability.md $(ARGS)

bench: $(VENV)/installed ## Compare the cost of requests with a stock project (ARGS=--quick: a short run)
	@$(VENV)/bin/python -m bench $(or $(ARGS),--json docs/performance.json --plot docs/performance.svg)

scale: $(VENV)/installed ## Compare the cost of requests with 1,000 and 1,000,000 rows
	@$(VENV)/bin/python -m bench.scale $(or $(ARGS),--json docs/scale.json)

matrix: $(VENV)/installed ## Run the suite on Python 3.11 and 3.13, Django 5.2 and 6.1 (those that are installed)
	@$(VENV)/bin/nox $(ARGS)

$(VENV)/installed: requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| { echo "Python 3.11 or newer is needed: make $(MAKECMDGOALS) PYTHON=python3.13"; exit 1; }
	@echo "Installing into $(VENV) (once)..."
	@$(PYTHON) -m venv $(VENV) \
		|| { echo "Python's venv module is needed: apt install python3-venv"; exit 1; }
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check -r requirements-dev.txt \
		|| { echo "pip could not install; is there a network? Then run this again."; exit 1; }
	@touch $@

secrets: $(VENV)/installed ## Print three random secrets, as lines for .env
	@$(MANAGE) generatesecrets

check: $(VENV)/installed ## Lint, check types, layers and deployment files, as CI does
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy .
	$(VENV)/bin/lint-imports
	$(VENV)/bin/hadolint Dockerfile
	$(VENV)/bin/check-jsonschema --builtin-schema vendor.compose-spec docker-compose*.yml
	$(VENV)/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(VENV)/bin/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(VENV)/bin/kubernetes-validate --strict --quiet deploy/kubernetes/[!k]*.yaml

lock: ## Compile requirements*.txt from their .in files (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes --quiet \
		--custom-compile-command "make lock" requirements.in -o requirements.txt
	uv pip compile --universal --python-version 3.11 --generate-hashes --quiet \
		--custom-compile-command "make lock" requirements-dev.in -o requirements-dev.txt

clean: ## Remove what the other targets created, the development database included
	@[ ! -L .data/postgres ] || rm -rf "$$(readlink .data/postgres)" "$$(readlink .data/postgres).lock"
	rm -rf $(VENV) .data .nox .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache staticfiles
