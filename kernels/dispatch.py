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


def use_compiled_products(weight: Tensor) -> bool:
    """Whether products with this weight [out, in] run as compiled C; with AMX, oneDNN's are the faster ones."""
    out, width = weight.shape
    if weight.dtype != torch.bfloat16 or out % 64 or width % 2 or weight.device.type != "cpu" or library() is None:
        return False
    return not torch.cpu._is_amx_tile_supported()


def use_compiled_sampling(logits: Tensor) -> bool:
    """Whether tokens are chosen by compiled C."""
    return (
        logits.device.type == "cpu" and logits.dtype == torch.float32 and not _interpreted() and library() is not None
    )


@cache
def _installed() -> bool:
    return find_spec("triton") is not None


@cache
def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"
