# Each target sets up what it needs; nothing is installed twice.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready

.PHONY: demo quick test check bench training frontier calibrators figures soak docs clean

demo: $(READY)  ## The whole method on bundled models, offline; prints where the report is.
	$(BIN)/infalign demo --out runs/demo

quick: $(READY)  ## The same made small, in a minute.
	$(BIN)/infalign demo --quick --out runs/quick

test: $(READY)  ## All tests, on two cores.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: $(READY)  ## Lint and format.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: $(READY)  ## Time computing and stores on one core; writes docs/benchmarks.md and docs/store-benchmarks.md.
	$(BIN)/python benchmarks/run.py
	$(BIN)/python benchmarks/store.py

training: $(READY)  ## Time training steps and methods; writes docs/training-benchmarks.md, in half an hour.
	$(BIN)/python benchmarks/training.py

frontier: $(READY)  ## Train every method and compare with theory; writes docs/frontier.md, in an hour.
	$(BIN)/python benchmarks/frontier.py

calibrators: $(READY)  ## Judge the calibrators; writes docs/calibrators.md. DATA=folder adds public samples.
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/calibrators.py --jobs 2 $(if $(DATA),--data $(DATA))

soak: $(READY)  ## Kill and resume 200 collections; writes docs/soak.md.
	OMP_NUM_THREADS=1 $(BIN)/python tests/soak.py --kills 200

# torch first and alone: its CPU build, before anything can ask for another one.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[train,dev]"
	touch $(READY)

docs: $(READY)  ## Put the demo's output and picture into the README.
	$(BIN)/python docs/make.py runs/demo

figures: $(READY)  ## The theory's figures, and the page that shows them: docs/figures.md.
	$(BIN)/python docs/figures.py

clean:
	rm -rf $(VENV) runs
