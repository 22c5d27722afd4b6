"""Lets another Python (vLLM's environment) import this very package, however it was installed."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

NEEDED = ("serving", "kernels")
"""The subpackages that engines import; each may live in a folder of its own in an editable installation."""


def _source(name: str) -> Path:
    spec = find_spec(name)
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


def link_package(folder: Path) -> Path:
    """Make `folder` an entry for PYTHONPATH that holds `spark_llm` as links to this installation's folders."""
    shutil.rmtree(folder, ignore_errors=True)
    package = folder / "spark_llm"
    package.mkdir(mode=0o700, parents=True)
    root = _source("spark_llm")
    for name in NEEDED:
        (package / name).symlink_to(_source(f"spark_llm.{name}"))
    for entry in root.iterdir():
        if not entry.is_dir() or entry.name == "default_model":
            (package / entry.name).symlink_to(entry)
    return folder
