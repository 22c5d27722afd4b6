"""Writing keys and values into the paged cache, and copying cached tokens from page to page."""

from __future__ import annotations

from spark_llm.kernels.dispatch import use_compiled, use_triton
from torch import Tensor


def kv_store(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slots: Tensor) -> None:
    """Write token t of k, v [T, H, D] to slot `slots[t]` of the caches [pages, P, H, D].

    Slot s is offset s % P of page s // P.
    """
    if use_triton(k):
        from spark_llm.kernels.gpu.kv_store import kv_store as on_gpu

        on_gpu(k, v, k_cache, v_cache, slots)
    else:
        kv_store_reference(k, v, k_cache, v_cache, slots)


def kv_store_reference(k: Tensor, v: Tensor, k_cache: Tensor, v_cache: Tensor, slots: Tensor) -> None:
    """`kv_store` by torch's operators."""
    for new, cache in ((k, k_cache), (v, v_cache)):
        cache.view(-1, *new.shape[1:]).index_copy_(0, slots, new)


def kv_copy(k_cache: Tensor, v_cache: Tensor, source: Tensor, target: Tensor) -> None:
    """Copy slots `source` to slots `target`; no slot may be in both."""
    if use_compiled(k_cache):
        from spark_llm.kernels.cpu.pointwise import kv_copy as compiled

        compiled(k_cache, v_cache, source, target)
    else:
        kv_copy_reference(k_cache, v_cache, source, target)


def kv_copy_reference(k_cache: Tensor, v_cache: Tensor, source: Tensor, target: Tensor) -> None:
    """`kv_copy` by torch's operators."""
    for cache in (k_cache, v_cache):
        flat = cache.view(-1, *cache.shape[2:])
        flat.index_copy_(0, target, flat.index_select(0, source))
