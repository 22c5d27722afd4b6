"""Writing keys and values into the paged cache: one program a token."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _store_kernel(
    k,  # [T, H * D], rows strided
    v,
    k_cache,  # [slots, H * D]
    v_cache,
    slots,  # [T]
    k_stride,
    v_stride,
    width,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + row)
    at = tl.arange(0, BLOCK)
    inside = at < width
    tl.store(k_cache + slot * width + at, tl.load(k + row * k_stride + at, mask=inside), mask=inside)
    tl.store(v_cache + slot * width + at, tl.load(v + row * v_stride + at, mask=inside), mask=inside)


def kv_store(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slots: Tensor) -> None:
    """`kernels.kv_store.kv_store`; the heads of a row of k, v [T, H, D] lie side by side."""
    count, heads, head_dim = k.shape
    assert k.stride()[1:] == v.stride()[1:] == (head_dim, 1), "the heads of a row must lie side by side"
    if count:
        width = heads * head_dim
        block = triton.next_power_of_2(width)
        _store_kernel[(count,)](k, v, k_cache, v_cache, slots, k.stride(0), v.stride(0), width, BLOCK=block)
