"""The arrows between packages: who may import whom, read from the sources."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {"optimizer": "optimizer", "serving": "serving", "kernels": "kernels", "spark_llm": "spark_llm"}
HEAVY = {"torch", "pyspark", "transformers", "xgrammar", "triton", "pandas"}
ALLOWED = {  # package: (our packages, heavy third parties)
    "optimizer": ({"optimizer"}, set()),
    "kernels": ({"kernels"}, {"torch", "triton"}),
    "serving": ({"serving", "kernels"}, {"torch", "xgrammar"}),
    "serving/scheduler": ({"serving"}, set()),
    "serving/cache": ({"serving"}, set()),
    "serving/worker": ({"serving"}, set()),
    "spark_llm/executor": ({"spark_llm", "optimizer", "serving"}, {"pyspark", "pandas"}),
    "spark_llm/result_log": ({"spark_llm", "optimizer", "serving"}, set()),
}


def imports(file: Path) -> set[str]:
    """Modules imported at run time; what stands under `if TYPE_CHECKING` does not count."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found.add(node.module or "")
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(file.read_text()))
    return found


def package_of(module: str) -> str | None:
    parts = module.split(".")
    if parts[0] != "spark_llm":
        return None
    return parts[1] if len(parts) > 1 and parts[1] in ("optimizer", "serving", "kernels") else "spark_llm"


@pytest.mark.parametrize("folder", ALLOWED)
def test_arrows(folder):
    ours, heavy = ALLOWED[folder]
    nested = [other for other in ALLOWED if other.startswith(folder + "/")]
    for file in (ROOT / folder).rglob("*.py"):
        name = file.relative_to(ROOT).as_posix()
        if any(name.startswith(other + "/") for other in nested):
            continue
        for module in imports(file):
            package = package_of(module)
            if (module == "spark_llm" or module.startswith("spark_llm.errors")) and folder.split("/")[0] != "kernels":
                continue  # the table of errors is a leaf that everyone may read
            assert package is None or package in ours, f"{name} imports {module}"
            assert module.split(".")[0] not in HEAVY - heavy, f"{name} imports {module}"


def test_generic_names_are_never_imported():
    for folder in [*FOLDERS, "tests", "benchmarks", "training"]:
        for file in (ROOT / folder).rglob("*.py"):
            roots = {module.split(".")[0] for module in imports(file)}
            assert not roots & {"optimizer", "serving", "kernels"}, file


@pytest.mark.parametrize(
    "module",
    [
        "spark_llm",
        "spark_llm.optimizer.prompts",
        "spark_llm.serving.client",
        "spark_llm.serving.worker.front",
        "spark_llm.planner",
    ],
)
def test_light_modules_load_nothing_heavy(module):
    code = f"import sys, {module}; print(sorted({HEAVY!r} & set(sys.modules)))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"
