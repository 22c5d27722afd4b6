"""Attention of new tokens over a paged KV cache, for extend (many queries) and decode (one) in the same batch.

The torch implementation executes the groups of `cascade.plan_cascade`: shared pages are attended once for all their
sharers, private ones in padded batches, and the parts are merged by log-sum-exp.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from spark_llm.kernels.attention import attend, attend_reference, merge_states
from spark_llm.kernels.cascade import Group, Int, Query, pad_tables, plan_cascade
from spark_llm.kernels.cpu.attention import WIDEST, HostPlan
from spark_llm.kernels.cpu.attention import paged_attention as compiled
from spark_llm.kernels.dispatch import use_compiled, use_triton
from torch import Tensor

if TYPE_CHECKING:
    from spark_llm.kernels.gpu.paged_attention import DevicePlan

Index = slice | Tensor


@dataclass(frozen=True, slots=True)
class PagedBatch:
    """The requests of a step on the model's device.

    Request r owns rows `query_starts[r]:query_starts[r + 1]` of the step; they are its last positions before
    `context_lens[r]`. Position p is at offset p % P of page `page_tables[r, p // P]`. With a `window` each of them sees
    its last `window` positions only.
    """

    query_starts: Tensor  # [R + 1]
    context_lens: Tensor  # [R]
    page_tables: Tensor  # [R, n], padded with 0
    parts: tuple[Part, ...]
    window: int = 0
    device_plan: DevicePlan | None = None  # of Triton's kernels, in place of the parts
    host_plan: HostPlan | None = None  # of compiled kernels, likewise

    @classmethod
    def build(
        cls,
        queries: Sequence[Query],
        page_size: int,
        *,
        dtype: torch.dtype,
        device: torch.device,
        window: int = 0,
        heads: tuple[int, int, int] = (0, 0, 0),
    ) -> PagedBatch:
        """`heads`: query heads, KV heads and head dimension, as Triton's kernels are planned for them."""
        tables = torch.from_numpy(pad_tables([q.table for q in queries])).to(device)
        device_plan = host_plan = None
        if use_triton(tables):
            from spark_llm.kernels.gpu.paged_attention import DevicePlan

            device_plan = DevicePlan.build(queries, page_size, heads, window, device)
        elif use_compiled_attention(heads[2], dtype, device):
            host_plan = HostPlan.build(queries, page_size, heads[0] // heads[1], window)
        groups = () if device_plan or host_plan else plan_cascade(queries, page_size, window)
        starts = [*(q.row for q in queries), queries[-1].row + queries[-1].end - queries[-1].start]
        ends = [q.end for q in queries]
        return cls(
            query_starts=torch.from_numpy(np.array(starts)).to(device),
            context_lens=torch.from_numpy(np.array(ends)).to(device),
            page_tables=tables,
            parts=tuple(Part.of(group, dtype, device) for group in groups),
            window=window,
            device_plan=device_plan,
            host_plan=host_plan,
        )


@dataclass(frozen=True, slots=True)
class Part:
    """A group of the cascade as tensors; contiguous rows and pages as slices, which copy nothing."""

    shape: tuple[int, int]  # B, Lq
    rows: Index  # B * Lq rows of the step
    pages: Index  # B * n pages
    keys: slice  # of the n * P gathered keys
    mask: Tensor | None  # [B, 1, Lq, Lk]
    causal: bool
    diagonal: bool

    @classmethod
    def of(cls, group: Group, dtype: torch.dtype, device: torch.device) -> Part:
        return cls(
            shape=(group.rows.shape[0], group.rows.shape[1]),
            rows=_index(group.rows, device),
            pages=_index(group.pages, device),
            keys=slice(group.first, group.last),
            mask=_mask(group, dtype, device),
            causal=group.causal,
            diagonal=group.diagonal,
        )

    def with_keys(self, pages: Tensor, keys: int, mask: Tensor | None) -> Part:
        """The same queries over the first `keys` keys of other pages."""
        return replace(self, pages=pages, keys=slice(0, keys), mask=mask)

    def attend(
        self, q: Tensor, k_cache: Tensor, v_cache: Tensor, scale: float, softcap: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Attention of this part's rows: [B * Lq, Hq, D] and [B * Lq, Hq]."""
        batch, length = self.shape
        heads, width = q.shape[1:]
        k, v = (self._gather(cache) for cache in (k_cache, v_cache))
        queries = q[self.rows].view(batch, length, heads, width)
        mask = self.mask
        if length == 1:  # the query heads of one KV head as its queries: one pass over the keys
            queries = queries.view(batch, k.shape[1], -1, width)
            mask = mask if mask is None else mask.expand(-1, -1, queries.shape[2], -1)
        else:
            queries = queries.transpose(1, 2)
        out, lse = attend(queries, k, v, scale=scale, mask=mask, causal=self.causal, softcap=softcap)
        if length == 1:
            return out.reshape(batch, heads, width), lse.reshape(batch, heads)
        return out.transpose(1, 2).reshape(-1, heads, width), lse.transpose(1, 2).reshape(-1, heads)

    def _gather(self, cache: Tensor) -> Tensor:
        """[pages, P, Hkv, D] to the part's keys [B, Hkv, Lk, D]."""
        pages = cache[self.pages] if isinstance(self.pages, slice) else cache.index_select(0, self.pages)
        return pages.view(self.shape[0], -1, *cache.shape[2:])[:, self.keys].transpose(1, 2)


def use_compiled_attention(width: int, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether heads of that width are attended by the compiled kernel."""
    return 0 < width <= WIDEST and use_compiled(torch.empty(width, dtype=dtype, device=device))


def paged_attention(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, batch: PagedBatch, scale: float, *, softcap: float = 0.0
) -> Tensor:
    """Causal attention of every row over its request's cached positions up to its own.

    Parameters
    ----------
    q : [T, Hq, D]
        Rows of the step; their keys and values are already stored.
    k_cache, v_cache : [pages, P, Hkv, D]
        One layer of the cache.

    Returns
    -------
    Tensor
        [T, Hq, D] of q's dtype.
    """
    if batch.device_plan is not None:
        from spark_llm.kernels.gpu.paged_attention import paged_attention as on_gpu

        plan, tables = batch.device_plan, batch.page_tables
        return on_gpu(q, k_cache, v_cache, tables, plan, scale=scale, softcap=softcap, window=batch.window)
    if batch.host_plan is not None:
        tables, window = batch.page_tables, batch.window
        return compiled(q, k_cache, v_cache, tables, batch.host_plan, scale=scale, softcap=softcap, window=window)
    merges = any(not part.diagonal for part in batch.parts)
    out = torch.empty(q.shape, dtype=torch.float32 if merges else q.dtype, device=q.device)
    lse = torch.empty(q.shape[:2], dtype=torch.float32, device=q.device)
    for part in batch.parts:
        part_out, part_lse = part.attend(q, k_cache, v_cache, scale, softcap)
        if not part.diagonal:
            known_out, known_lse = out[part.rows], lse[part.rows]  # views, where the rows are a slice
            merge_states(known_out, known_lse, part_out, part_lse)
            part_out, part_lse = known_out, known_lse
        if part.diagonal or isinstance(part.rows, Tensor):
            out[part.rows], lse[part.rows] = part_out.to(out.dtype), part_lse
    return out.to(q.dtype)


def paged_attention_reference(
    q: Tensor, k_cache: Tensor, v_cache: Tensor, batch: PagedBatch, scale: float, *, softcap: float = 0.0
) -> Tensor:
    """`paged_attention` by its formula, one request at a time."""
    outs = []
    for r, length in enumerate(batch.context_lens.tolist()):
        rows = q[batch.query_starts[r] : batch.query_starts[r + 1]]
        k, v = (cache[batch.page_tables[r].long()].flatten(0, 1)[:length] for cache in (k_cache, v_cache))
        positions = torch.arange(length - len(rows), length, device=q.device)[:, None]
        keys = torch.arange(length, device=q.device)
        hidden = keys > positions
        if batch.window:
            hidden |= keys <= positions - batch.window
        mask = torch.zeros(hidden.shape, dtype=q.dtype, device=q.device).masked_fill(hidden, -torch.inf)
        heads_first = (x.transpose(0, 1)[None] for x in (rows, k, v))
        out, _ = attend_reference(*heads_first, scale=scale, mask=mask[None, None], softcap=softcap)
        outs.append(out[0].transpose(0, 1))
    return torch.cat(outs)


def _index(ids: Int, device: torch.device) -> Index:
    flat = ids.reshape(-1)
    if (np.diff(flat) == 1).all():
        return slice(int(flat[0]), int(flat[-1]) + 1)
    return torch.from_numpy(flat).to(device)


def _mask(group: Group, dtype: torch.dtype, device: torch.device) -> Tensor | None:
    if group.query_positions is None or group.key_offsets is None:
        return None
    keys = group.key_offsets[:, None] + np.arange(group.first, group.last)
    visible = keys[:, None, :] <= group.query_positions[:, :, None]
    if group.window:
        visible &= keys[:, None, :] > group.query_positions[:, :, None] - group.window
    mask = np.where(visible, np.float32(0), np.float32(-np.inf))
    return torch.from_numpy(mask).to(device=device, dtype=dtype)[:, None]
