# Everything a fresh machine needs: `make lab` runs the main job, `make test` runs the tests. Both set up first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: lab test bench check lock lock-pd notebook clean

lab: $(VENV)/ready
	$(BIN)/kit run lab

test: $(VENV)/ready
	$(BIN)/pytest
	$(BIN)/pytest --nbval --nbval-cell-timeout=120 --nbval-current-env notebooks

bench: $(VENV)/ready
	$(BIN)/python benchmarks/run.py
	$(BIN)/python benchmarks/observe.py
	$(BIN)/python benchmarks/many_runs.py

check: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/mypy

lock: $(VENV)/ready
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	    --group dev pyproject.toml --output-file requirements.lock

# The lab's serving environments. New locks are new environments: some GB and minutes for everyone.
lock-pd: $(VENV)/ready
	for name in recipe current; do \
	    $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	        --no-header --no-annotate --override kit/lab/pd/$$name.override kit/lab/pd/$$name.in \
	        --output-file kit/lab/pd/$$name.lock || exit 1; done

notebook: $(VENV)/ready
	$(BIN)/jupyter lab notebooks

clean: $(VENV)/ready
	$(BIN)/kit clean
	$(BIN)/kit lab down
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

# The environment is ready when every hash-checked package of the lock is in it; half-made ones are made again.
$(VENV)/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
	    { echo "Python's venv module is missing: apt install python3-venv"; exit 1; }
	@echo "making $(VENV) (about a minute the first time)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
