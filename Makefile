# Everything sets itself up: `make train` works in a fresh clone with Python 3.11 or 3.12.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: train test test-slow lint types throughput bundle clean

train: $(READY)
	$(BIN)/python train.py $(ARGS)

test: $(READY)
	$(BIN)/python -m pytest $(ARGS)

# What takes minutes: full trainings against the published figures.
test-slow: $(READY)
	$(BIN)/python -m pytest -m slow $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

# The environment with the versions that were tested; made again when they change.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(v < (3, 11) and f"Python 3.11 or newer is needed, and {sys.executable} is {v[0]}.{v[1]}: try make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

# Training throughput against other frameworks, in an environment that has them.
throughput: .venv-peers/.ready
	.venv-peers/bin/python -m benchmarks.throughput $(ARGS)

.venv-peers/.ready: pyproject.toml
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet --editable '.[peers]'
	touch $@

# A folder for a machine with a GPU and without network, where it measures what is due:
# bash bundle/run.sh FOLDER --plan. The wheels are of what such a machine may lack beside torch.
BUNDLE_WHEELS ?= hydra-core omegaconf antlr4-python3-runtime PyYAML packaging filelock h5py
bundle: $(READY)
	$(BIN)/python -m benchmarks.gpu.bundle bundle $(BUNDLE_WHEELS)

clean:
	rm -rf bundle .venv .venv-peers .mypy_cache .pytest_cache .ruff_cache *.egg-info
