PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo test lint check soak fuzz mutate bench clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-8s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(READY)  ## convert a small Llama to NxD Training and back, and compare every bit
	$(BIN)/python -m ckptc.demo demo

test: $(READY)  ## run the tests, on all cores
	$(BIN)/python -m pytest -n auto --dist worksteal

lint: $(READY)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/mypy -p ckptc

check: lint test  ## lint and test

soak: $(READY)  ## kill runs at random moments, hundreds of times, and compare what --resume ends with
	$(BIN)/python -m tests.soak.soak --rounds 330

fuzz: $(READY)  ## mutate inputs of every reader for FUZZ_SECONDS (300)
	$(BIN)/python -m tests.fuzz.fuzz --seconds $(or $(FUZZ_SECONDS),300)

mutate: $(READY)  ## break the compiler's passes one by one for MUTATE_SECONDS (1200), and see that tests notice
	$(BIN)/python -m tests.mutation.mutation --seconds $(or $(MUTATE_SECONDS),1200)

bench: $(READY)  ## measure ckptc beside cp, plain torch and peers, kernels, and plans (SIZE=1 TURNS=3)
	$(BIN)/python benchmarks/convert.py --gb $(or $(SIZE),1) --turns $(or $(TURNS),3)
	$(BIN)/python benchmarks/kernels.py
	$(BIN)/python benchmarks/compile_405b.py

clean:  ## remove what is made here: the environment, caches, the demo
	rm -rf $(VENV) demo fuzz-findings build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	$(BIN)/python -m compileall -q ckptc dsl compiler runtime  # an installed package has its bytecode, too
	touch $@
