# Every target sets up .venv by itself; a second run finds it ready. Choose another interpreter with PYTHON=python3.13.
PYTHON ?= python3
ARGS ?=

VENV := .venv
READY := $(VENV)/.ready
AGENTS := workflows.agents.registered:ACTIVITIES
RUN := PATH="$(CURDIR)/$(VENV)/bin:$$PATH"

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo demo-fleet test lint format bench bench-policy bench-whatif bench-audit bench-revocation mutate mutate-audit docs clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | while IFS='|' read -r name text; do printf '%-18s %s\n' "$$name" "$$text"; done

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' || \
		{ echo "Python 3.11 to 3.14 is needed; name one with: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@echo "setting up $(VENV)"
	@$(VENV)/bin/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@$(RUN) python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(READY) ## the reference application on a real Temporal server; options in ARGS, for example ARGS=--keep
	@$(RUN) python -m workflows.demo $(ARGS)

demo-fleet: $(READY) ## a fleet: an authority service, two workers, clients, PostgreSQL; ARGS="--only 1 4" for some steps
	@$(RUN) python -m workflows.fleet $(ARGS)

test: $(READY) ## all tests, against a real Temporal server; choose with ARGS="tests/policy -x"
	@# Most tests wait for the server; a file's tests stay together, because they share what they set up.
	@$(RUN) python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(READY) ## style, formatting, types, who may import whom, and the policies
	@$(RUN) ruff check
	@$(RUN) ruff format --check
	@$(RUN) mypy
	@$(RUN) lint-imports --no-logo
	@$(RUN) exequatur policy fmt --check policies policies/agents policies/worked
	@for folder in policies policies/worked; do \
		$(RUN) exequatur policy check --strict $$folder && \
		$(RUN) exequatur policy schema --check --from workflows.activities --policies $$folder || exit 1; done
	@$(RUN) exequatur policy check --strict policies/agents
	@# What the frameworks' own activities take has a Cedar type only in parts, and a warning for each other part.
	@found=$$($(RUN) exequatur policy schema --check --from $(AGENTS) --policies policies/agents 2>&1) || \
		{ echo "$$found" >&2; exit 1; }

format: $(READY) ## rewrite the code in the one style
	@$(RUN) ruff check --fix-only --quiet
	@$(RUN) ruff format

bench: $(READY) ## what the gate costs, beside the same work without it
	@$(RUN) python -m benchmarks.gate $(ARGS)

bench-policy: $(READY) ## what the engine adds to a bare Cedar decision, and what loading a bundle does to decisions
	@$(RUN) python -m benchmarks.policy $(ARGS)

bench-whatif: $(READY) ## how many recorded decisions a second are compared under an old and a new bundle
	@$(RUN) python -m benchmarks.whatif $(ARGS)

bench-audit: $(READY) ## how fast histories are audited, up to the longest that Temporal allows
	@$(RUN) python -m benchmarks.audit $(ARGS)

bench-revocation: $(READY) ## how long it takes from a revocation to the stop of a running activity
	@$(RUN) python -m benchmarks.revocation $(ARGS)

mutate: $(READY) ## switch off each security rule in turn and name the test that notices
	@$(RUN) python -m tests.mutate $(ARGS)

mutate-audit: $(READY) ## change recorded histories in every way and show that the audit notices
	@$(RUN) python -m tests.audit.mutants $(ARGS)

docs: $(READY) ## regenerate what is made from the code: docs/settings.md, docs/audit-report.schema.json
	@$(RUN) python -c 'from exequatur.settings import settings_page; print(settings_page(), end="")' > docs/settings.md.new
	@mv docs/settings.md.new docs/settings.md
	@$(RUN) python -m exequatur.audit.document > docs/audit-report.schema.json.new
	@mv docs/audit-report.schema.json.new docs/audit-report.schema.json

clean: ## remove .venv and everything generated
	@rm -rf $(VENV) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find . -path ./.git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
