# Everything sets itself up: `make train` works in a fresh clone with Python 3.11, 3.12 or 3.13.
PYTHON ?= python3
# What pip is to be told besides, such as PIP_ARGS="--extra-index-url URL".
PIP_ARGS ?=
BIN := .venv/bin
# What training needs is installed, and what tests, linters and types need besides.
TRAIN := .venv/.train
READY := .venv/.ready

# $(call timed,NAME,COMMAND) runs a command and says how long it took.
timed = @begun=$$(date +%s); $(2) && echo "make: $(1) took $$(($$(date +%s) - begun)) s"

.PHONY: train test test-slow lint types throughput bundle clean

train: $(TRAIN)
	$(call timed,training with its start,$(BIN)/python train.py $(ARGS))

# A process for each core; each imports PyTorch and Keras, so there are not too many.
test: $(READY)
	$(BIN)/python -m pytest -n logical --maxprocesses 8 --dist worksteal $(ARGS)

# What takes long: full trainings against the published figures, the wheel, whole benchmarks.
test-slow: $(READY)
	$(BIN)/python -m pytest -m slow $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

# The environment with the versions that were tested; made again when they change.
$(TRAIN): pyproject.toml constraints.txt setup.py
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(not (3, 11) <= v <= (3, 13) and f"Python 3.11 to 3.13 is needed, and {sys.executable} is {v[0]}.{v[1]}: try make PYTHON=python3.12")'
	$(call timed,the environment,$(PYTHON) -m venv .venv)
	$(call timed,installing what training needs,$(BIN)/python -m pip install --constraint constraints.txt $(PIP_ARGS) --editable .)
	@touch $@

$(READY): $(TRAIN)
	$(call timed,installing what tests need,$(BIN)/python -m pip install --constraint constraints.txt $(PIP_ARGS) --editable '.[dev]')
	@touch $@

# Training throughput against other frameworks, in an environment that has them.
throughput: .venv-peers/.ready
	.venv-peers/bin/python -m benchmarks.throughput $(ARGS)

.venv-peers/.ready: pyproject.toml setup.py
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install $(PIP_ARGS) --editable '.[peers]'
	touch $@

# A folder for a machine with a GPU and without network, where it measures what is due:
# bash bundle/run.sh FOLDER --plan. The wheels are of what such a machine may lack beside torch.
BUNDLE_WHEELS ?= hydra-core omegaconf antlr4-python3-runtime PyYAML packaging filelock h5py
bundle: $(READY)
	$(BIN)/python -m benchmarks.gpu.bundle bundle $(BUNDLE_WHEELS)

clean:
	rm -rf build bundle dist .venv .venv-peers .mypy_cache .pytest_cache .ruff_cache *.egg-info
