"""The Triton kernels: exact under Triton's interpreter, and compilable for an H200, both without a GPU."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
HERE = Path(__file__).parent
CASES = [
    node.name.removeprefix("case_")
    for node in ast.parse((HERE / "interpreted.py").read_text()).body
    if isinstance(node, ast.FunctionDef) and node.name.startswith("case_")
]
SHARED_MEMORY = 227 << 10
"""Of a program on an H200, in bytes."""
pytestmark = pytest.mark.slow


def run(program, **environment):
    """The JSON object that a program of this folder prints last; a crash leaves its name."""
    command = [sys.executable, "-m", f"tests.kernels.{program}"]
    variables = {**os.environ, **environment}
    done = subprocess.run(command, cwd=HERE.parents[1], env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{program} ended with {done.returncode}:\n{done.stderr[-3000:]}"
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def problems():
    return run("interpreted", TRITON_INTERPRET="1")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    return run("compiled", TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path_factory.mktemp("triton")))


@pytest.mark.parametrize("case", CASES)
def test_equals_the_reference_under_the_interpreter(problems, case):
    assert problems[case] == ""


def test_all_kernels_compile_for_an_h200(compiled):
    assert all(made["machine_code"] > 0 and made["shared"] <= SHARED_MEMORY for made in compiled.values())


@pytest.mark.parametrize(("kernel", "multiplies"), [("extend", "wgmma.mma_async"), ("decode", "mma.sync")])
def test_attention_multiplies_on_tensor_cores_while_keys_are_copied_ahead(compiled, kernel, multiplies):
    assert compiled[kernel][multiplies] > 0
    assert compiled[kernel]["cp.async.cg"] > 0
