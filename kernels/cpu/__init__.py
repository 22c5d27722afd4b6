"""Kernels in C for CPUs with AVX-512 and bfloat16 dot products, as one library that `build.py` compiles."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import torch
from torch import Tensor


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels; None where they were not built or this CPU lacks their instructions.

    They share torch's OpenMP threads: their runtime goes by the name of the one that torch has loaded.
    """
    file = Path(__file__).parent / "libkernels.so.1"
    if not file.exists() or not torch.cpu._is_avx512_bf16_supported():
        return None
    try:
        return ctypes.CDLL(str(file))
    except OSError:  # of another platform
        return None


def call(name: str, *arguments: Tensor | int | float | None) -> None:
    """Call a kernel: tensors by address, numbers as int64 and double."""
    kernels = library()
    assert kernels is not None, "only where `dispatch.use_compiled` says so"
    kernels[name](*map(_as_c, arguments))


def _as_c(value: Tensor | int | float | None) -> ctypes.c_void_p | ctypes.c_int64 | ctypes.c_double:
    if isinstance(value, int):
        return ctypes.c_int64(value)
    if isinstance(value, float):
        return ctypes.c_double(value)
    return ctypes.c_void_p(None if value is None else value.data_ptr())
