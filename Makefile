# `make run` and `make test` set up what they need; `make help` lists all targets.

PYTHON ?= python3
VENV := .venv
MANAGE := $(VENV)/bin/python manage.py
UV := $(VENV)/bin/python -m uv
COMPILE := $(UV) pip compile --universal --python-version 3.11 --generate-hashes --quiet \
	--custom-compile-command "make lock"
# Install a lock file with uv, or with pip where uv fails. A dot per second shows the progress; its
# loop ends with the shell that started it.
INSTALL = (while sleep 1 && kill -0 $$$$; do printf .; done) 2> /dev/null & \
	$(UV) pip install --quiet --python $(VENV)/bin/python --require-hashes -r $(1) 2> /dev/null \
		|| { $(PYTHON) -m venv $(VENV) && $(VENV)/bin/python -m pip install --quiet -r $(1); } \
		|| { echo; echo "Could not install; a network and Python's venv module" \
			"(apt install python3-venv) are needed. Then run this again."; exit 1; }; \
	echo " done."
# A worker for each processor. `-n` is not used, because its workers would be without `-X dev`.
PARALLEL := --dist worksteal --tx '$(shell getconf _NPROCESSORS_ONLN)*popen//python=$(VENV)/bin/python -X dev'

.DEFAULT_GOAL := help
.PHONY: help run fix quick test faults bench scale matrix check secrets lock upgrade clean

help: ## List the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

run: $(VENV)/runtime ## Set up what is missing, then serve on PORT (3000) with hot reload, and send email
	@$(MANAGE) setup
	@# As a module, because the scripts of .venv/bin do not start after the directory was moved.
	@$(MANAGE) mailworker --parent $$$$ & \
		exec env -u WEB_CONCURRENCY $(VENV)/bin/python -m gunicorn --reload --workers 1

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

# What the service needs to run. `installed` adds the development tools.
$(VENV)/runtime: requirements-run.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| { echo "Python 3.11 or newer is needed: make $(MAKECMDGOALS) PYTHON=python3.13"; exit 1; }
	@printf 'Installing the service into $(VENV) (once) '
	@$(PYTHON) -m venv --without-pip $(VENV)
	@sed -n '/^uv==/,/[^\]$$/p' requirements-run.txt > $(VENV)/uv.txt
	@$(PYTHON) -m pip --python $(VENV)/bin/python install --quiet -r $(VENV)/uv.txt 2> /dev/null || true
	@$(call INSTALL,requirements-run.txt)
	@touch $@

$(VENV)/installed: $(VENV)/runtime requirements-dev.txt
	@printf 'Installing the development tools into $(VENV) (once) '
	@$(call INSTALL,requirements-dev.txt)
	@touch $@

secrets: $(VENV)/runtime ## Print three random secrets, as lines for .env
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

lock: $(VENV)/runtime ## Compile requirements*.txt from their .in files
	$(COMPILE) $(ARGS) requirements.in -o requirements.txt
	$(COMPILE) $(ARGS) requirements-run.in -o requirements-run.txt
	$(COMPILE) $(ARGS) requirements-dev.in -o requirements-dev.txt

upgrade: ## Compile the newest versions that the .in files allow, install them, and run the suite
	@$(MAKE) lock ARGS=--upgrade
	@git diff --stat requirements*.txt
	@$(MAKE) test ARGS=

clean: ## Remove what the other targets created, the development database included
	@[ ! -L .data/postgres ] || rm -rf "$$(readlink .data/postgres)" "$$(readlink .data/postgres).lock"
	rm -rf $(VENV) .data .nox .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache staticfiles
