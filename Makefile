# Each target sets up what it needs; nothing is installed twice.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready
# Threads of OpenMP sleep while they wait, so that other work does not slow them down many times.
export OMP_WAIT_POLICY ?= PASSIVE
export GOMP_SPINCOUNT ?= 0
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check
CONSTRAINTS ?= constraints.txt
# The first of these that runs: a Python 3.13 on the path, uv's, pyenv's.
PYTHON313 ?= $(firstword $(foreach p,python3.13 $(shell uv python find 3.13 2>/dev/null) \
	$(wildcard $(HOME)/.pyenv/versions/3.13.*/bin/python),\
	$(shell $(p) -c "import sys; print(sys.executable)" 2>/dev/null)))

.PHONY: help demo quick test test-py313 check wheel canary bench training frontier calibrators forecasts landing bands length-control \
	figures soak faults trial verify evidence evidence-exact evidence-hacking evidence-ablations \
	evidence-page reference docs clean

help:  ## Show this list.
	@sed -n 's/^\([a-z0-9-]*\):.*  ## /\1\t/p' Makefile | expand -t 16

demo: $(READY)  ## Run the whole method on bundled models, offline; print where the report is.
	$(BIN)/infalign demo --out runs/demo

quick: $(READY)  ## Run a small version of the demo, in a minute.
	$(BIN)/infalign demo --quick --out runs/quick

test: $(READY)  ## Run all tests on two cores.
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-py313:  ## Run all tests on Python 3.13, in an environment of its own.
	@test -n "$(PYTHON313)" || { echo "No Python 3.13 found. Install one (uv python install 3.13)" \
		"or name it: make test-py313 PYTHON313=/path/to/python" >&2; exit 1; }
	$(MAKE) test VENV=.venv-py313 PYTHON=$(PYTHON313)

check: $(READY)  ## Check lint, format and types.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

wheel: $(READY)  ## Build sdist and wheel; run the wheel alone, without extras, in an empty environment.
	$(BIN)/python tests/wheel.py

canary:  ## Test the newest TRL and transformers for the behavior that infalign relies on.
	$(MAKE) test-pins VENV=.venv-canary CONSTRAINTS=.venv-canary/constraints.txt

.PHONY: test-pins
test-pins:
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	grep ^torch== constraints.txt > $(CONSTRAINTS)
	rm -f $(READY)
	$(MAKE) $(READY) VENV=$(VENV) CONSTRAINTS=$(CONSTRAINTS)
	$(PIP) --upgrade -c $(CONSTRAINTS) trl transformers
	$(BIN)/python -m pip list | grep -iE "^(trl|transformers|torch) "
	$(BIN)/python -m pytest -m pins -W default

bench: $(READY)  ## Time computing and stores on one core; write docs/benchmarks.md and docs/store-benchmarks.md.
	$(BIN)/python benchmarks/run.py
	$(BIN)/python benchmarks/store.py

training: $(READY)  ## Time training steps and methods; write docs/training-benchmarks.md, in half an hour.
	$(BIN)/python benchmarks/training.py

frontier: $(READY)  ## Train every method and compare with theory; write docs/frontier.md, in an hour.
	$(BIN)/python benchmarks/frontier.py

calibrators: $(READY)  ## Judge the calibrators; write docs/calibrators.md. DATA=folder adds public samples.
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/calibrators.py --jobs 2 $(if $(DATA),--data $(DATA))

forecasts: $(READY)  ## Judge forecasts; write docs/forecast-benchmarks.md. COUNTS=files adds data.
	$(BIN)/python benchmarks/forecasts.py $(if $(COUNTS),--counts $(COUNTS))

landing: $(READY)  ## Judge KL targeting by reweighting; write docs/landing-benchmarks.md.
	$(BIN)/python benchmarks/landing.py

bands: $(READY)  ## Judge the bands over n; write docs/band-benchmarks.md.
	$(BIN)/python benchmarks/bands.py

length-control: $(READY)  ## Judge length control; write docs/length-control.md. ALPACA=folder and PREFERENCES=files add data.
	$(BIN)/python benchmarks/length_control.py $(if $(ALPACA),--alpaca $(ALPACA)) $(if $(PREFERENCES),--preferences $(PREFERENCES))

trial: $(READY)  ## Do what a new user does in the first hour: own model, reward and prompts.
	$(BIN)/python tests/trial.py

soak: $(READY)  ## Kill and resume 200 collections; write docs/soak.md.
	OMP_NUM_THREADS=1 $(BIN)/python tests/soak.py --kills 200

faults: $(READY)  ## Damage, kill, fuzz and deceive it; write docs/faults.md. SCALE=0.01 tries a share.
	PYTHONPATH=tests $(BIN)/python -m faults.campaign --scale $(or $(SCALE),1) \
		$(if $(MINUTES),--minutes $(MINUTES))

verify: $(READY)  ## Check numbers with independent code for MINUTES (10); write docs/verified.md.
	PYTHONPATH=tests $(BIN)/python -m verify.campaign --minutes $(or $(MINUTES),10) \
		$(if $(SEED),--seed $(SEED))

evidence-exact: $(READY)  ## Compute each method's optimum on real rewards (DATA=folder); write evidence/exact.md.
	$(BIN)/python evidence/exact.py $(if $(DATA),--data $(DATA))

evidence-hacking: $(READY)  ## Judge training on faulty rewards by the true one; write evidence/hacking.md.
	$(BIN)/python evidence/hacking.py

evidence: $(READY)  ## Train all methods on a real model, in days (DATA=folder WORK=work THREADS=1); write evidence/trained.md.
	$(if $(THREADS),OMP_NUM_THREADS=$(THREADS)) $(BIN)/python evidence/trained.py --work $(or $(WORK),work) \
		$(if $(DATA),--data $(DATA),--hub)

evidence-ablations: $(READY)  ## Vary each choice of the method; write evidence/ablations.md.
	$(BIN)/python evidence/ablations.py

evidence-page: $(READY)  ## Write docs/evidence.md and the README's headline from the results in evidence/.
	$(BIN)/python evidence/claims_page.py
	$(BIN)/python evidence/headline.py

reference: $(READY)  ## Write docs/reference.md: all commands and public names.
	$(BIN)/python docs/make.py

docs: $(READY)  ## Write docs/reference.md, and docs/demo.md with its picture from runs/demo.
	$(BIN)/python docs/make.py runs/demo

figures: $(READY)  ## Draw the theory's figures and the page that shows them: docs/figures.md.
	$(BIN)/python docs/figures.py

# torch first and alone: its CPU build, before anything can ask for another one.
$(READY): pyproject.toml $(CONSTRAINTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) "pip>=25.1"
	$(PIP) -c $(CONSTRAINTS) torch
	$(PIP) -c $(CONSTRAINTS) -e ".[train]" --group dev
	touch $(READY)

clean:  ## Remove the environments, what was built, and the runs.
	rm -rf .venv .venv-* dist runs
