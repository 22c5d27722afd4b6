"""Kernels in C for CPUs with AVX-512 and bfloat16 dot products, as one library that `build.py` compiles."""

from __future__ import annotations

import ctypes
import warnings
from functools import cache
from pathlib import Path

import torch
from spark_llm.kernels.cpu.build import version
from torch import Tensor

STALE = (
    "spark-llm: kernels/cpu/libkernels.so.1 was compiled from other sources than these; torch's operators serve in its "
    "place, more slowly. Run `make kernels`."
)


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels; None where they were not built or this CPU lacks their instructions.

    They share torch's OpenMP threads: their runtime goes by the name of the one that torch has loaded.
    """
    file = Path(__file__).parent / "libkernels.so.1"
    if not file.exists() or not torch.cpu._is_avx512_bf16_supported():
        return None
    try:
        kernels = ctypes.CDLL(str(file))
    except OSError:  # of another platform
        return None
    if not _is_current(kernels):
        warnings.warn(STALE, stacklevel=2)
        return None
    return kernels


def _is_current(kernels: ctypes.CDLL) -> bool:
    """Whether the library was made from the sources beside it."""
    try:
        made_from = ctypes.c_char_p.in_dll(kernels, "kernels_version").value or b""
    except ValueError:  # older than its version
        return False
    return version() in ("", made_from.decode())


def call(name: str, *arguments: Tensor | int | float | None) -> None:
    """Call a kernel: tensors by address, numbers as int64 and double."""
    kernels = library()
    assert kernels is not None, "only where `dispatch.use_compiled` says so"
    getattr(kernels, name)(*map(_as_c, arguments))


def _as_c(value: Tensor | int | float | None) -> ctypes.c_void_p | ctypes.c_int64 | ctypes.c_double:
    if isinstance(value, int):
        return ctypes.c_int64(value)
    if isinstance(value, float):
        return ctypes.c_double(value)
    return ctypes.c_void_p(None if value is None else value.data_ptr())
