PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

SUITE ?= smoke

.PHONY: demo test test-all check lint format types docs bench bench-check bench-quick peers clean help

help:
	@echo "make demo         install, then tune a real model with fully Bayesian optimization"
	@echo "make test         install if need be, then run the tests"
	@echo "make test-all     the same with the statistical tests at full size"
	@echo "make check        lint, format check, types, tests: what CI runs"
	@echo "make format       rewrite the code in the project's format"
	@echo "make docs         write the reference of every public name to docs-output/"
	@echo "make bench        a suite of the benchmarks (SUITE=smoke), with its report"
	@echo "make bench-check  fail if speed or regret got worse than what is stored"
	@echo "make peers        install the peers of the benchmarks, each in an environment of its own"
	@echo "make bench-quick  speed against BoTorch, on this machine"
	@echo "make clean        remove the environment and what is built, but not results"

# One stamp per environment: it is remade only when the requirements change.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet -c constraints.txt torch
	$(PIP) install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

$(VENV)/.bench-installed: $(VENV)/.installed
	$(PIP) install --quiet -c constraints.txt -e '.[bench]'
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/python examples/tune_svm.py --output demo-output

# Tests start many processes: the package is compiled once for all, even where the shell forbids it.
test test-all: export PYTHONDONTWRITEBYTECODE =

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-all: $(VENV)/.installed
	$(BIN)/python -m pytest -n 2 --dist worksteal --long

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.installed
	$(BIN)/mypy

check: lint types test

$(VENV)/.docs-installed: $(VENV)/.installed
	$(PIP) install --quiet -c constraints.txt -e '.[docs]'
	@touch $@

# Besides what `import gpbo` names: what jobs are made of, and what strategies and acquisition
# functions of one's own need.
DOCUMENTED := gpbo $(addprefix gpbo.,acquisition backend callbacks candidates completion data fitting \
	hyperparameters integrations.optuna integrations.tensorboard job options posterior priors record simulation \
	situation storage surrogate transfer tuner units worker)
docs: $(VENV)/.docs-installed
	$(BIN)/python -m pdoc --docformat google --output-directory docs-output $(DOCUMENTED)

bench: $(VENV)/.bench-installed
	$(BIN)/gpbo bench $(SUITE)

bench-check: $(VENV)/.installed
	$(BIN)/gpbo bench check

# In ~/.cache/gpbo/peers, or where GPBO_PEERS says; PEERS="smac ax" installs these only.
PEERS ?= all
peers: $(VENV)/.bench-installed
	$(BIN)/python -m gpbo_benchmarks.peers install $(PEERS)

bench-quick: $(VENV)/.bench-installed
	$(BIN)/python benchmarks/speed.py

clean:
	rm -rf $(VENV) demo-output docs-output build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
