# Everything runs from ./.venv; the first target that needs it makes it from the lock file.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install test lint types format proto lock demo serve bench quality reference money soak peak drill clean

install: .venv/.installed

.venv/.installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: install
	$(BIN)/mypy

test: lint types
	$(BIN)/pytest

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

demo: install
	$(BIN)/dsp demo

serve: install
	$(BIN)/dsp serve

proto: install
	$(BIN)/python -m proto.generate

# What the ledger promises, at full length (some 40 minutes): simulated flights, kill -9, faults, rates, cost to bidders.
money: install
	$(BIN)/python -m bench money
	$(BIN)/python -m bench chaos
	$(BIN)/python -m bench faults
	$(BIN)/python -m bench ledger
	$(BIN)/python -m bench grants

bench: install
	$(BIN)/python -m bench

bench-audience: install  # 10 million profiles: 3 minutes, 4 GB of disk
	$(BIN)/python -m bench audience load --people 10000000

quality: install
	$(BIN)/python -m bench quality

soak: install  # half an hour at 70 % of saturation, watched for leaks and drift
	$(BIN)/python -m bench soak

peak: install  # overload (20 minutes), one exchange's flood, restarts
	$(BIN)/python -m bench overload
	$(BIN)/python -m bench flood
	$(BIN)/python -m bench restart

drill: install  # a system of its own under pressure and faults, two minutes; the page is var/drill.html
	$(BIN)/dsp drill --own

reference: install  # k8s/REFERENCE.md and Grafana's dashboards, from the program
	$(BIN)/python -m k8s.reference
	$(BIN)/python -m k8s.monitoring.dashboards

lock:
	uv pip compile pyproject.toml --extra dev --generate-hashes --no-emit-index-url --no-header --no-annotate -o requirements.lock

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache
