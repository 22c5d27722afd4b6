"""Decode steps on a GPU: inputs in buffers that stay in place, so that a step is one CUDA graph.

A captured graph launches a whole step at once; without it, the launches of a small model take longer than their work.
Where many requests share a long prefix, steps run kernel by kernel instead, and read the prefix once for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from spark_llm.kernels.cascade import Int, Query
from spark_llm.kernels.decode_batch import AHEAD
from spark_llm.kernels.gpu.decode_attention import splits_for
from spark_llm.kernels.gpu.paged_attention import DevicePlan
from spark_llm.kernels.paged_attention import PagedBatch
from spark_llm.serving.models.decoder import Decoder, KVCache, StepInput
from torch import Tensor

TYPICAL_CONTEXT = 4096
"""Keys for which a graph's number of splits is chosen; it is right for all, and best near this one."""


@dataclass(frozen=True, slots=True)
class Buffers:
    """Inputs of a decode step of up to B requests; a row without a request has length 0 and writes the spare page."""

    tokens: Tensor  # [B]
    lengths: Tensor  # [B] in int32: keys with the new one
    firsts: Tensor  # [B] in int32
    tables: Tensor  # [B, n] in int32

    def first(self, rows: int) -> Buffers:
        return Buffers(self.tokens[:rows], self.lengths[:rows], self.firsts[:rows], self.tables[:rows])


class DeviceDecode:
    """The decode steps of one model; one `DeviceBatch` at a time.

    Parameters
    ----------
    spare_page : int
        A page of the cache that belongs to nobody.
    most_rows, max_length : int
        Sequences that run at once, and their longest.
    """

    def __init__(
        self,
        decoder: Decoder,
        cache: KVCache,
        spare_page: int,
        *,
        windows: Sequence[int],
        most_rows: int,
        max_length: int,
    ) -> None:
        self.decoder, self.cache, self.windows = decoder, cache, windows
        self.page_size, self.device = cache.k.shape[2], cache.k.device
        self._spare, width = spare_page, -(-max_length // self.page_size)
        self._buckets = [1 << i for i in range((max(1, most_rows) - 1).bit_length() + 1)]
        rows = self._buckets[-1]
        self._buffers = Buffers(
            torch.zeros(rows, dtype=torch.int64, device=self.device),
            torch.zeros(rows, dtype=torch.int32, device=self.device),
            torch.zeros(rows, dtype=torch.int32, device=self.device),
            torch.full((rows, width), spare_page, dtype=torch.int32, device=self.device),
        )
        self._captured: dict[int, Callable[[], Tensor]] = {}
        # routing to experts looks at the device from the host, which a graph cannot
        self._graphs = self.device.type == "cuda" and not decoder.config.num_experts

    def batch(self, tables: Sequence[NDArray[np.int32]], positions: Int) -> DeviceBatch:
        """Load a batch, whose tables reach its positions, into the buffers."""
        rows, width = len(tables), self._buffers.tables.shape[1]
        padded = np.full((rows, width), self._spare, np.int32)
        for row, table in zip(padded, tables, strict=True):
            row[: len(table)] = table
        bucket = next(size for size in self._buckets if size >= rows)
        buffers = self._buffers.first(bucket)
        buffers.tables[:rows] = torch.from_numpy(padded).to(self.device)
        buffers.tables[rows:] = self._spare
        buffers.lengths[:rows] = torch.from_numpy(positions.astype(np.int32) + 1).to(self.device)
        buffers.lengths[rows:] = 0
        queries = [Query(r, p, p + 1, t) for r, (p, t) in enumerate(zip(positions.tolist(), tables, strict=True))]
        plan = DevicePlan.build(queries, self.page_size, self.decoder.config.heads, 0, self.device)
        room = width * self.page_size - int(positions.max()) - 1
        if any(self.windows):
            room = min(room, AHEAD * self.page_size)
        return DeviceBatch(buffers, positions.copy(), self.page_size, room, plan if plan.levels > plan.splits else None)

    def run(self, tokens: Tensor, batch: DeviceBatch) -> Tensor:
        """Compute one token [R] of each request of the batch; returns logits [R, vocab], until the next run."""
        rows = len(tokens)
        batch.buffers.tokens[:rows] = tokens
        if batch.plan is not None:
            plan = replace(batch.plan, lengths=batch.buffers.lengths[:rows])
            return self._forward(batch.buffers.first(rows), plan)
        bucket = len(batch.buffers.tokens)
        if bucket not in self._captured:
            self._captured[bucket] = self._capture(batch.buffers)
        return self._captured[bucket]()[:rows]

    def _capture(self, buffers: Buffers) -> Callable[[], Tensor]:
        """A function that computes the step of the buffers and returns its logits."""
        rows = len(buffers.tokens)
        splits = splits_for(rows, self.decoder.config.num_kv_heads, min(TYPICAL_CONTEXT, self._reach))
        none = torch.empty((0, 7), dtype=torch.int32, device=self.device)
        plan = DevicePlan(none, none, buffers.firsts, buffers.lengths, (16, 16, 4, 1), splits, splits)
        if not self._graphs:
            return partial(self._forward, buffers, plan)
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # kernels compile, and workspaces are made, before the capture
            for _ in range(2):
                self._forward(buffers, plan)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            logits = self._forward(buffers, plan)

        def compute() -> Tensor:
            graph.replay()
            return logits

        return compute

    def _forward(self, buffers: Buffers, plan: DevicePlan) -> Tensor:
        positions = (buffers.lengths.long() - 1).clamp_(min=0)
        pages = buffers.tables.gather(1, (positions // self.page_size)[:, None])[:, 0].long()
        batch = PagedBatch(_none(buffers), buffers.lengths, buffers.tables, (), device_plan=plan)
        batches = {window: replace(batch, window=window) for window in self.windows}
        step = StepInput(
            token_ids=buffers.tokens,
            positions=positions,
            slots=pages * self.page_size + positions % self.page_size,
            copies=None,
            batches=batches,
            logit_rows=slice(None),
            logit_batches=batches,
        )
        return self.decoder.forward(step, self.cache)

    @property
    def _reach(self) -> int:
        return self._buffers.tables.shape[1] * self.page_size


class DeviceBatch:
    """Requests of one new token each, in the buffers of `DeviceDecode`; as `kernels.decode_batch.DecodeBatch`."""

    def __init__(self, buffers: Buffers, positions: Int, page_size: int, room: int, plan: DevicePlan | None) -> None:
        self.buffers, self.positions, self.room, self.plan = buffers, positions, room, plan
        self._page_size = page_size

    def advance(self, begun: Mapping[int, int]) -> None:
        """Move every request on by one token; `begun` holds the page that a request's new position begins, if any."""
        rows = len(self.positions)
        self.positions += 1
        self.room -= 1
        self.buffers.lengths[:rows] += 1
        if begun:
            device = self.buffers.tables.device
            at = np.fromiter(begun, np.int64)
            column = torch.from_numpy(self.positions[at] // self._page_size).to(device)
            pages = torch.tensor(list(begun.values()), dtype=torch.int32, device=device)
            self.buffers.tables[torch.from_numpy(at).to(device), column] = pages


def _none(buffers: Buffers) -> Tensor:
    return buffers.firsts[:0]
