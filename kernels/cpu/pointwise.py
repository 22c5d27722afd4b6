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
    out = x.clone(memory_format=torch.contiguous_format)
    rows, heads, width = x.shape
    call("rotate_and_store", out, cos.contiguous(), sin.contiguous(), *(None,) * 5, rows, heads, 0, width, 0.0)
    return out


def rotate_and_store(
    heads: Tensor,
    rotation: tuple[Tensor, Tensor],
    norms: tuple[Tensor, Tensor] | None,
    eps: float,
    k_cache: Tensor,
    v_cache: Tensor,
    slots: Tensor,
) -> Tensor:
    heads, (cos, sin), kv_heads = heads.contiguous(), rotation, k_cache.shape[2]
    rows, count, width = heads.shape
    q_heads = count - 2 * kv_heads
    arrays = heads, cos.contiguous(), sin.contiguous(), *(norms or (None, None)), k_cache, v_cache, slots
    call("rotate_and_store", *arrays, rows, q_heads, kv_heads, width, eps)
    return heads[:, :q_heads]


def silu_and_mul(gate_up: Tensor) -> Tensor:
    gate_up, width = gate_up.contiguous(), gate_up.shape[1] // 2
    out = torch.empty((len(gate_up), width), dtype=gate_up.dtype)
    call("silu_and_mul", gate_up, out, len(gate_up), width)
    return out


def kv_copy(k_cache: Tensor, v_cache: Tensor, source: Tensor, target: Tensor) -> None:
    call("kv_copy", k_cache, v_cache, source, target, len(source), k_cache.shape[2] * k_cache.shape[3])
