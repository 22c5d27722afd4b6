"""Compiles the CPU kernels into one shared library, where there is a C compiler; without one, torch's operators serve.

Runs before the package is importable (from setup.py), so it uses the standard library alone.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIBRARY = HERE / "libkernels.so.1"
SOURCES = sorted(HERE.glob("*.c"))
FLAGS = ["-std=gnu11", "-O3", "-Wall", "-fPIC", "-shared", "-fopenmp", "-mfma"]
EXTENSIONS = [f"-mavx512{part}" for part in ("f", "bw", "vl", "dq", "bf16")]


def version() -> str:
    """What tells these sources from others; empty where they are not at hand (an installed package)."""
    files = [*SOURCES, *sorted(HERE.glob("*.h"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16] if SOURCES else ""


def build_library() -> Path | None:
    """Compile what has changed; None, and a line that says so, where that is not possible."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if platform.machine() != "x86_64" or sys.platform != "linux" or compiler is None:
        return None
    newest = max(path.stat().st_mtime for path in (*SOURCES, *HERE.glob("*.h"), Path(__file__)))
    if LIBRARY.exists() and LIBRARY.stat().st_mtime >= newest:
        return LIBRARY
    built = LIBRARY.with_suffix(f".{os.getpid()}")
    command = [
        compiler,
        *FLAGS,
        *EXTENSIONS,
        f'-DKERNELS_VERSION="{version()}"',
        *map(str, SOURCES),
        "-o",
        str(built),
        "-lm",
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        print(f"spark-llm: the CPU kernels were not built, torch's operators serve instead: {result.stderr[-500:]}")
        return None
    built.replace(LIBRARY)  # at once, for whoever reads it
    return LIBRARY


if __name__ == "__main__":
    build_library()
