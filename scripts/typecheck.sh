#!/usr/bin/env bash
# mypy cannot follow the mapped folders of an editable install, so it reads a tree of links laid out as installed.
# The benchmarks are scripts that import one another by bare names.
set -eu
tree=build/types
rm -rf "$tree" && mkdir -p "$tree"
cp -rs "$PWD/spark_llm" "$tree/spark_llm"
for package in optimizer serving kernels; do cp -rs "$PWD/$package" "$tree/spark_llm/$package"; done
benchmarks=$(cd benchmarks && ls *.py | sed 's/^/-m /; s/\.py$//')
MYPYPATH="$tree:benchmarks" .venv/bin/mypy --config-file pyproject.toml -p spark_llm $benchmarks
