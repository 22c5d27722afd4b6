#!/usr/bin/env bash
# Train the default model where spark-llm is not installed (a bare machine with an accelerator): needs only Python with
# torch, numpy, pyarrow, safetensors, tokenizers and sqlglot (pure Python). Arguments go to training.train; PYTHON names the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
cp -r spark_llm "$site/"
cp -r optimizer serving kernels "$site/spark_llm/"
PYTHONPATH="$site:$PWD" "${PYTHON:-python3}" -m training.train "$@"
