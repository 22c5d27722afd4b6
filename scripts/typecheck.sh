#!/usr/bin/env bash
# mypy cannot follow the mapped folders of an editable install, so it reads a tree of links laid out as installed.
set -eu
tree=build/types
rm -rf "$tree" && mkdir -p "$tree"
cp -rs "$PWD/spark_llm" "$tree/spark_llm"
for package in optimizer serving kernels; do cp -rs "$PWD/$package" "$tree/spark_llm/$package"; done
MYPYPATH="$tree" .venv/bin/mypy --config-file pyproject.toml -p spark_llm
