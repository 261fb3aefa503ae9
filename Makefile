PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test test-fast test-gpu lint soak speed simulate reference clean

install: .venv/installed

.venv/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; make PYTHON=python3.11 names one")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

# Tunes and trains eight models on a synthetic cohort, and prints the report.
DEMO := --data synthetic-ad-4mm --encoder efficientnet-lite0 --set stride=4 --seeds 3 \
	--train-sizes 24,48 --trials 2 --epochs 2 --workers 2 --db demo.db \
	--model slice2d-imagenet,slice2d-imagenet-pos,slice2d-scratch,slice2d-scratch-pos,cnn3d,fewslice-imagenet,linear-voxels,prior

demo: install
	$(BIN)/bench run $(DEMO)
	$(BIN)/bench report --db demo.db

# One process per core, up to 8 so that memory suffices.
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal

test: install lint
	$(PYTEST)

# All tests except those that train, read many scans or run the command.
test-fast: install
	$(PYTEST) -m "not slow"

# Tests that need a GPU; `make test` skips them if there is none.
test-gpu: install
	$(BIN)/python -m pytest -m gpu -rs

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Kills workers, drivers and nodes of every executor at many random moments; takes a while.
soak: install
	BENCH_FAULTS=$${BENCH_FAULTS:-20} $(BIN)/python -m pytest -s -rs tests/execute/test_kill.py \
		tests/execute/test_resume.py tests/execute/test_*faults.py tests/execute/test_ray.py

speed: install
	status=0; for file in tests/speed/*_speed.py; do \
		echo "== $$file"; PYTHONPATH=. $(BIN)/python $$file || status=1; done; exit $$status

# The simulations of docs/simulation.md, which take some minutes on two idle cores.
simulate: install
	$(BIN)/python -m tests.simulation.run

# Computes the shipped results.db, which takes about half an hour on two idle cores.
reference: install
	rm -f results.db
	$(BIN)/bench run --data synthetic-ad-4mm --encoder efficientnet-lite0 --set stride=4 --seeds 5 \
		--train-sizes 24,48 --trials 0 --epochs 12 --workers 2 --db results.db \
		--model slice2d-imagenet,slice2d-imagenet-pos,slice2d-scratch,slice2d-own,cnn3d,fewslice-imagenet,linear-voxels,prior
	$(BIN)/bench report

clean:
	rm -rf .venv demo.db demo.db.work demo.db.lock
