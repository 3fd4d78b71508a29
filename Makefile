# make demo   town, training, evaluation, report: minutes on two CPU cores after the install
# make test   the whole suite
# make setup  the virtual environment alone (.venv)
# make lint   ruff
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: setup demo test lint
setup: $(VENV)/.complete

$(VENV)/.complete: requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.lock
	touch $@
	@echo 'To run the programs in this shell: . $(VENV)/bin/activate'

demo: setup
	$(RUN) -m benchmarks.demo

test: setup
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n auto --maxprocesses 4  # tiny tensors: more threads only wait for each other

lint: setup
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
