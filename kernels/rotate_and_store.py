"""Rotated queries, and rotated keys and values in the paged cache, from the rows of one projection."""

from __future__ import annotations

from spark_llm.kernels.dispatch import use_compiled, use_triton
from spark_llm.kernels.kv_store import kv_store
from spark_llm.kernels.rms_norm import rms_norm
from spark_llm.kernels.rotary import rotate
from torch import Tensor

Norms = tuple[Tensor, Tensor]


def rotate_and_store(
    heads: Tensor,
    rotation: tuple[Tensor, Tensor],
    norms: Norms | None,
    eps: float,
    k_cache: Tensor,
    v_cache: Tensor,
    slots: Tensor,
) -> Tensor:
    """Normalize and rotate queries and keys, and store keys and values.

    Parameters
    ----------
    heads : [T, Hq + 2 Hkv, D]
        Queries, keys and values; may be overwritten.
    rotation : [T, 1, D / 2], twice
        Cosines and sines.
    norms : [D], twice, or None
        Weights of the norms of queries and keys (`rms_norm`).
    k_cache, v_cache : [pages, P, Hkv, D]
        Token t goes to offset slots[t] % P of page slots[t] // P.

    Returns
    -------
    Tensor
        Queries [T, Hq, D].
    """
    if not use_triton(heads) and use_compiled(heads):
        from spark_llm.kernels.cpu.pointwise import rotate_and_store as compiled

        return compiled(heads, rotation, norms, eps, k_cache, v_cache, slots)
    return rotate_and_store_reference(heads, rotation, norms, eps, k_cache, v_cache, slots)


def rotate_and_store_reference(
    heads: Tensor,
    rotation: tuple[Tensor, Tensor],
    norms: Norms | None,
    eps: float,
    k_cache: Tensor,
    v_cache: Tensor,
    slots: Tensor,
) -> Tensor:
    """`rotate_and_store` one after the other."""
    kv_heads = k_cache.shape[2]
    both, v = heads[:, :-kv_heads], heads[:, -kv_heads:]
    if norms is None:
        both = rotate(both, *rotation)
        q, k = both[:, :-kv_heads], both[:, -kv_heads:]
    else:
        q = rotate(rms_norm(both[:, :-kv_heads], norms[0], eps), *rotation)
        k = rotate(rms_norm(both[:, -kv_heads:], norms[1], eps), *rotation)
    kv_store(k, v, k_cache, v_cache, slots)
    return q
