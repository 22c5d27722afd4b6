"""The kernels of `pointwise.c`, each with the signature of its reference."""

from __future__ import annotations

import torch
from spark_llm.kernels.cpu import call
from torch import Tensor


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    rows = x.reshape(-1, x.shape[-1])
    normed = torch.empty(x.shape, dtype=x.dtype)
    call("rms_norm", rows, None, weight, normed, None, len(rows), rows.shape[1], rows.stride(0), eps)
    return normed


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    x, residual = x.contiguous(), residual.contiguous()
    normed, total = torch.empty_like(x), torch.empty_like(x)
    call("rms_norm", x, residual, weight, normed, total, len(x), x.shape[1], x.shape[1], eps)
    return normed, total


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    rows, heads, width = x.shape
    x = x if x.stride()[1:] == (width, 1) else x.contiguous()
    out = torch.empty(x.shape, dtype=x.dtype)
    call("rotate", x, cos.contiguous(), sin.contiguous(), out, rows, heads, width, x.stride(0))
    return out


def silu_and_mul(gate_up: Tensor) -> Tensor:
    gate_up, width = gate_up.contiguous(), gate_up.shape[1] // 2
    out = torch.empty((len(gate_up), width), dtype=gate_up.dtype)
    call("silu_and_mul", gate_up, out, len(gate_up), width)
    return out


def kv_store(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slots: Tensor) -> None:
    width = k.shape[1] * k.shape[2]
    k, v = (x if x.stride()[1:] == (x.shape[2], 1) else x.contiguous() for x in (k, v))
    call("kv_store", k, v, k_cache, v_cache, slots, len(k), width, k.stride(0), v.stride(0))


def kv_copy(k_cache: Tensor, v_cache: Tensor, source: Tensor, target: Tensor) -> None:
    call("kv_copy", k_cache, v_cache, source, target, len(source), k_cache.shape[2] * k_cache.shape[3])
