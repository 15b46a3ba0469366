# Everything runs inside .venv, which the first target that needs it makes.
PYTHON ?= python3
# A pinned torch: the one that the comparisons were made with.
TORCH ?= torch==2.13.0
VENV := .venv
RUN := $(VENV)/bin/python -m
INSTALL := $(RUN) pip install --quiet --disable-pip-version-check

# The demonstration: its corpus is the documentation of the packages that were just installed.
DEMO_CORPUS := corpora/documentation
DEMO_RUN := runs/demo

# A process keeps the memory that its steps free: on a CPU, returning it to the system and faulting
# it in again is a fifth of a small model's step. See experiments/LOG.md.
export GLIBC_TUNABLES ?= glibc.malloc.arena_max=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=0x4000000000000000

# A process compiles on one core, mostly; files stay whole, for what their tests share.
PARALLEL := --numprocesses=auto --maxprocesses=4 --dist=loadfile

CAMPAIGNS := $(filter-out __init__ campaign elastic_run file_damage forked joined_processes small_blocks \
	strikes,$(basename $(notdir $(wildcard tests/campaigns/*.py))))

.PHONY: setup demo test test-slow test-interop test-tpu test-cuda test-campaigns compiler-tpu compiler-cuda lint format clean

setup: $(VENV)/.installed

$(VENV)/.installed: setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else "Python 3.11 to 3.13 is needed, found %d.%d: name one with PYTHON=" % v)'
	@echo "Installing into $(VENV) (about 2 GB, once) ..."
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable ".[test]"
	@touch $@

$(VENV)/.interop: $(VENV)/.installed
	@echo "Adding torch, transformers and the other extras of the tests ..."
	$(INSTALL) "$(TORCH)"
	$(INSTALL) --editable ".[test,interop,notebook]"
	@touch $@

demo: $(DEMO_CORPUS)/metadata.json
	@printf '\n== Pre-training a tiny ALBERT on it (a few minutes) ==\n'
	$(RUN) experiments.pretrain --config=experiments/configs/albert_tiny_cpu.py \
		--config.data.corpus_dir=$(DEMO_CORPUS) --workdir=$(DEMO_RUN)
	@printf '\n== What it learned, on text that it never saw ==\n'
	$(RUN) experiments.evaluate --workdir=$(DEMO_RUN)
	@printf '\n== Five gaps, filled in ==\n'
	$(RUN) experiments.predict --task=fill-mask --model=$(DEMO_RUN) \
		--text="This function returns a [MASK] of strings." \
		--text="Returns True if the file exists and False [MASK]." \
		--text="Both arguments must have the same [MASK]." \
		--text="This function can be [MASK] to read a file." \
		--text="See the documentation of the class for more [MASK]."
	@printf '\n%s\n' "Loss curves: $(DEMO_RUN)/curves.png" "Next, a text of your own:" \
		"  $(RUN) experiments.predict --task=fill-mask --model=$(DEMO_RUN) --text='The [MASK] of the array.'" \
		"or the real thing: see 'Build a corpus' and 'Train' in README.md"

$(DEMO_CORPUS)/metadata.json: | $(VENV)/.installed
	@printf '\n== Building a corpus from the documentation in the installed packages ==\n'
	$(RUN) data_pipeline.build_corpus --format=docstrings --vocab_size=8000 \
		--output_dir=$(DEMO_CORPUS)

lint: $(VENV)/.installed
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy

format: $(VENV)/.installed
	$(RUN) ruff check --fix .
	$(RUN) ruff format .

test: lint
	$(RUN) pytest $(PARALLEL)

# With torch and a notebook's kernel, which two of the users' journeys take.
test-slow: $(VENV)/.interop
	$(RUN) pytest -m "slow"

test-interop: $(VENV)/.interop
	$(RUN) pytest -m "interop and not slow" $(PARALLEL)

# The compiler for TPUs in the version that this jax asks for, beside the other packages: installed
# among them, it would be what every command looks for devices with.
LIBTPU := import importlib.metadata as m; \
	print(next(r.partition(";")[0] for r in m.requires("jax") if r.startswith("libtpu")))

$(VENV)/.tpu: $(VENV)/.installed
	@echo "Adding the compiler for TPUs (about 700 MB) ..."
	$(INSTALL) --no-deps --upgrade --target $(VENV)/libtpu "$$($(VENV)/bin/python -c '$(LIBTPU)')"
	@touch $@

compiler-tpu: $(VENV)/.tpu

test-tpu: $(VENV)/.tpu
	PYTHONPATH=$(VENV)/libtpu $(RUN) pytest -m "tpu"

# Likewise JAX's plugin for CUDA with cuDNN, cuBLAS and ptxas, which needs no GPU and no driver.
CUDA_PLUGIN := import importlib.metadata as m; \
	print(next(r.partition(";")[0] for r in m.requires("jax") if r.startswith("jax-cuda12-plugin[with-cuda]")))

$(VENV)/.cuda: $(VENV)/.installed
	@echo "Adding the compiler for NVIDIA GPUs (about 5 GB) ..."
	$(INSTALL) --upgrade --target $(VENV)/cuda "$$($(VENV)/bin/python -c '$(CUDA_PLUGIN)')"
	@touch $@

compiler-cuda: $(VENV)/.cuda

test-cuda: $(VENV)/.cuda
	JAX_PLATFORMS=cpu PYTHONPATH=$(VENV)/cuda $(RUN) pytest -m "cuda"

# Hundreds of random attacks each, about three hours; full_disk needs root.
test-campaigns: $(VENV)/.installed
	@status=0; for name in $(CAMPAIGNS); do \
		$(RUN) tests.campaigns.$$name || status=1; \
	done; exit $$status

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
