"""Which implementation of a kernel runs: Triton's on a GPU and under its interpreter, C's on some CPUs, or torch's."""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec

import torch
from spark_llm.kernels.cpu import library
from torch import Tensor


def use_triton(x: Tensor) -> bool:
    """Whether kernels on this tensor run in Triton; without the package, torch's operators serve a GPU as well."""
    return (x.is_cuda or _interpreted()) and _installed()


def use_compiled(x: Tensor) -> bool:
    """Whether kernels on this tensor run as compiled C; they take bfloat16 whose last dimension is a multiple of 32."""
    return x.device.type == "cpu" and x.dtype == torch.bfloat16 and not x.shape[-1] % 32 and library() is not None


@cache
def _installed() -> bool:
    return find_spec("triton") is not None


@cache
def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"
