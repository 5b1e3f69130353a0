# make demo          install into .venv, then preprocess, train, evaluate and recommend on the built-in demo
# make test          lint and the tests that take no longer than seconds, in .venv
# make test-slow     the tests that take longer: documentation, accidents, installation
# make docs          the documentation into build/site; a dead link or an unknown API name fails
# make test-long     the tests' long forms, an hour: figures into benchmarks/results/reliability.json
# make fuzz          coverage-guided fuzzing of the parsers for SECONDS (300)
# make test-wheel    build the archives, install the wheel with the newest dependencies, and run the whole job from it
# make test-dgl113   all tests once more on the other DGL version and the oldest versions setup.cfg allows
# make test-user     all but the numerical tests as an ordinary user, where root can become one
# make test-matrix   the tests on every pair of DGL and torch that can be had as CPU builds here
# make test-gpu      the tests that need a CUDA device
# make bench-gpu     the kernels' and the training's benchmark on a CUDA device, into benchmarks/results/*_cuda.json
# make results-check make every summary, table and picture of the benchmarks again from benchmarks/results; fail on a difference
# make lock          write the exact versions and hashes again, after a change of setup.cfg (UPGRADE="NAME …" or all)
# make clean         remove what the above made

# the first Python here that DGL has wheels for; choose another with `make PYTHON=… demo`
PYTHON ?= $(shell for python in python3 python3.11 python3.12; do \
	$$python -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null \
	&& echo $$python && break; done)
JOBS ?= 2
USER_ID ?= u0042
SECONDS ?= 300

UPGRADE ?=

# Every file that these commands install is named in a lock with its hash. --no-deps: the locks are complete.
# Wheels only: an sdist would run its setup.py with build tools that no lock names.
LOCKED = -m pip install -q --disable-pip-version-check --require-hashes --only-binary :all: --no-deps
# The project itself is built by the setuptools of locks/build.txt instead of in a build environment of pip's.
PROJECT = -m pip install -q --disable-pip-version-check --no-build-isolation --no-deps --no-index
# The CPU build of torch if pip finds it, for example by PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL, else PyPI's.
torch = $(1) $(LOCKED) -r locks/torch-cpu.txt 2>/dev/null || { \
	echo "no CPU build of torch can be installed: taking PyPI's, on Linux with 3 GB of CUDA libraries"; \
	$(1) $(LOCKED) -r locks/torch.txt; }
NO_PYTHON = { echo "Python 3.11 or 3.12 with venv is needed, DGL has wheels for those: make PYTHON=/path/to/python3.11" >&2; exit 1; }

.PHONY: help demo install test test-slow lint test-long fuzz test-wheel test-dgl113 test-user test-matrix test-gpu bench-gpu results-check docs lock clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# make/  make/p' Makefile

.venv/bin/python:
	@test -n "$(PYTHON)" || $(NO_PYTHON)
	$(PYTHON) -m venv .venv

.venv/installed: setup.cfg pyproject.toml locks/build.txt locks/torch-cpu.txt locks/torch.txt locks/run.txt | .venv/bin/python
	.venv/bin/python $(LOCKED) -r locks/build.txt
	$(call torch,.venv/bin/python)
	.venv/bin/python $(LOCKED) -r locks/run.txt
	.venv/bin/python $(PROJECT) -e .
	@touch $@

.venv/installed-test: .venv/installed locks/test.txt
	.venv/bin/python $(LOCKED) -r locks/test.txt
	.venv/bin/python -m pip check --disable-pip-version-check
	@touch $@

install: .venv/installed

demo: .venv/installed
	@mkdir -p demo
	cd demo && ../.venv/bin/dualgnn preprocess --force
	cd demo && ../.venv/bin/dualgnn train --force
	cd demo && ../.venv/bin/dualgnn eval --topk 10
	cd demo && ../.venv/bin/dualgnn recommend --user $(USER_ID) --k 10

WORDS = README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md CITATION.cff setup.cfg pyproject.toml \
	benchmarks cli datasets docs dualgnn_dgl mkdocs.yml

# mypy sees the package as it is installed, with cli/ inside
lint: .venv/installed-test
	.venv/bin/ruff check .
	.venv/bin/ruff format --check -q .
	.venv/bin/codespell $(WORDS)
	.venv/bin/codespell -L evalute,maks,mising,modle,nam,recal,trian,visul,whats,widht,witdh tests
	@rm -rf build/types && mkdir -p build/types/dualgnn_dgl
	@ln -s $(CURDIR)/dualgnn_dgl/* build/types/dualgnn_dgl/ && ln -s $(CURDIR)/cli build/types/dualgnn_dgl/cli
	.venv/bin/python -m mypy build/types/dualgnn_dgl

test: lint
	.venv/bin/python -m pytest -rfEs -n $(JOBS) -m "not slow"

test-slow: .venv/installed-test
	.venv/bin/python -m pytest -rfEs -n $(JOBS) -m slow

# the tests that have a longer form (tests/figures.py)
LONG = tests/test_bad_input.py tests/test_crash.py tests/test_nothing_executes.py tests/test_memory.py tests/test_signals.py \
	tests/test_streams.py tests/test_forged.py tests/test_accidents.py
test-long: .venv/installed-test
	DUALGNN_LONG=1 OMP_NUM_THREADS=1 .venv/bin/python -m pytest -rfEs $(LONG)

fuzz: .venv/installed-test
	.venv/bin/python $(LOCKED) -r locks/fuzz.txt
	OMP_NUM_THREADS=1 .venv/bin/python tests/fuzz_parsers.py --seconds $(SECONDS)

# The wheel is installed as a user installs it: without the locks, and by the pip that Python brings.
test-wheel: .venv/installed .venv-tools/installed
	.venv/bin/python tests/wheel_job.py --python $(PYTHON) --twine .venv-tools/bin/twine

# locks/oldest.txt: every lower bound of setup.cfg as an exact version, DGL 1.1.3 among them; torch alone stays the newest
.venv-dgl113/installed: setup.cfg pyproject.toml locks/build.txt locks/torch-cpu.txt locks/torch.txt locks/oldest.txt
	@test -n "$(PYTHON)" || $(NO_PYTHON)
	$(PYTHON) -m venv .venv-dgl113
	.venv-dgl113/bin/python $(LOCKED) -r locks/build.txt
	$(call torch,.venv-dgl113/bin/python)
	.venv-dgl113/bin/python $(LOCKED) -r locks/oldest.txt
	.venv-dgl113/bin/python $(PROJECT) -e .
	@touch $@

test-dgl113: .venv-dgl113/installed
	.venv-dgl113/bin/python -c "from dualgnn_dgl._dgl import dgl; assert dgl.__version__ == '1.1.3', dgl.__version__"
	.venv-dgl113/bin/python -m pytest -rfEs -n $(JOBS)

test-user: .venv/installed-test
	.venv/bin/python tests/ordinary_user.py --jobs $(JOBS)

test-matrix:
	$(PYTHON) tests/matrix.py

test-gpu: .venv/installed-test
	.venv/bin/python -c 'import torch; assert torch.cuda.is_available(), "no CUDA device here, or a CPU build of torch"'
	.venv/bin/python -m pytest -rfEs -m gpu

bench-gpu: .venv/installed-test
	.venv/bin/python -m benchmarks.speed.bench_ops --device cuda
	.venv/bin/python -m benchmarks.speed.bench_step --device cuda
	.venv/bin/python -m benchmarks.speed.bench_train --device cuda --set cuda_graph=false

results-check: .venv/installed-test
	.venv/bin/python -m benchmarks.quality.results

.venv-tools/installed: locks/build.txt locks/tools.txt
	@test -n "$(PYTHON)" || $(NO_PYTHON)
	$(PYTHON) -m venv .venv-tools
	.venv-tools/bin/python $(LOCKED) -r locks/build.txt
	.venv-tools/bin/python $(LOCKED) -r locks/tools.txt
	@touch $@

.venv-docs/installed: locks/build.txt locks/docs.txt
	@test -n "$(PYTHON)" || $(NO_PYTHON)
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python $(LOCKED) -r locks/build.txt
	.venv-docs/bin/python $(LOCKED) -r locks/docs.txt
	@touch $@

docs: .venv-docs/installed
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict

lock: .venv-tools/installed
	.venv-tools/bin/python tests/lock.py --upgrade $(UPGRADE)

clean:
	rm -rf .venv .venv-dgl113 .venv-docs .venv-matrix .venv-tools demo build dist *.egg-info
