# `make demo` shows the product, `make test` proves it; both install what they need into .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

PLANS := camvid camvid-views camvid-rivals camvid-tuning camvid-widths clear-camvid clear-scenes camvid-rounds \
  camvid-rounds-networks weather-rounds camvid-iterations weather

.PHONY: demo test quick check docs release-check results install clean

demo: $(STAMP)
	$(BIN)/allweather demo --out demo-output

test: $(STAMP)
	$(BIN)/python -m pytest -q -n 2 --dist worksteal

# Every room, every method's contract and fields on a tiny network, in a minute; not the catalogue's networks, fidelity to
# published code, other libraries, nor processes of their own: SLOW in tests/conftest.py.
quick: $(STAMP)
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m "not slow"

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py tests/test_import.py tests/test_docs_claims.py
	$(BIN)/python -m benchmarks.tables --check

# The documentation as pages to look at, in site/; a warning is an error.
docs: $(STAMP)
	$(BIN)/python -m sphinx -W --keep-going -q -d site/.state docs site/html

# Builds the package and uses it in clean environments, each extra alone; some ten minutes and gigabytes.
release-check: $(STAMP)
	$(BIN)/python tools/release_check.py --out release-check

# Full records and pages of every plan into results/, then the summaries and tables that are kept; ten hours of a core, resumable.
results: $(STAMP)
	for plan in $(PLANS); do \
	  $(BIN)/allweather bench plans/$$plan.toml --out results/runs/$$plan && \
	  $(BIN)/allweather report results/runs/$$plan --out results/$$plan.html || exit 1; \
	done
	$(BIN)/python -m benchmarks.summarize results/runs benchmarks/records/plans
	$(BIN)/allweather bench plans/carry-over.toml --out results/carry-over
	$(BIN)/python -m benchmarks.carry_over results/carry-over --json benchmarks/records/carry-over.json.gz
	$(BIN)/python -m benchmarks.tables

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

clean:
	rm -rf $(VENV) demo-output site release-check
