"""Turns a scheduled step into tensors and runs the decoder on it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from spark_llm.kernels.cascade import Query, table_order
from spark_llm.kernels.paged_attention import PagedBatch
from spark_llm.serving.models.decoder import Decoder, KVCache, StepInput
from spark_llm.serving.scheduler.scheduler import Chunk, PageCopy, Step
from torch import Tensor

Int = NDArray[np.int64]


class ModelRunner:
    """A decoder and its KV cache."""

    def __init__(self, decoder: Decoder, cache: KVCache) -> None:
        self.decoder, self.cache = decoder, cache
        self.page_size = cache.k.shape[2]
        self.device, self.dtype = cache.k.device, cache.k.dtype

    def run(self, step: Step) -> tuple[list[Chunk], Tensor]:
        """Compute the step; returns the chunks whose next token is due and their logits [n, vocab] in float32."""
        chunks = [step.chunks[i] for i in table_order([chunk.table for chunk in step.chunks])]
        lengths = np.array([chunk.end - chunk.start for chunk in chunks])
        ends = lengths.cumsum()
        due = [i for i, chunk in enumerate(chunks) if chunk.is_last]
        step_input = self._step_input(chunks, ends - lengths, step.copies, ends[due] - 1)
        return [chunks[i] for i in due], self.decoder.forward(step_input, self.cache)

    def _step_input(self, chunks: list[Chunk], rows: Int, copies: list[PageCopy], logit_rows: Int) -> StepInput:
        positions = [np.arange(chunk.start, chunk.end) for chunk in chunks]
        slots = [_slots(chunk.table, at, self.page_size) for chunk, at in zip(chunks, positions, strict=True)]
        tokens = [chunk.sequence.tokens[chunk.start : chunk.end] for chunk in chunks]
        queries = [
            Query(int(row), chunk.start, chunk.end, chunk.table) for row, chunk in zip(rows, chunks, strict=True)
        ]
        return StepInput(
            token_ids=self._tensor(np.concatenate(tokens)),
            positions=self._tensor(np.concatenate(positions)),
            slots=self._tensor(np.concatenate(slots)),
            copies=self._copies(copies),
            batch=PagedBatch.build(queries, self.page_size, dtype=self.dtype, device=self.device),
            logit_rows=self._tensor(logit_rows),
        )

    def _copies(self, copies: list[PageCopy]) -> tuple[Tensor, Tensor] | None:
        """Source and target slots; a source that is itself copied in this step is followed to its origin."""
        if not copies:
            return None
        origins: dict[int, Int] = {}
        targets = []
        for copy in copies:
            source = copy.source * self.page_size + np.arange(copy.tokens)
            inherited = origins.get(copy.source, source)[: copy.tokens]
            source[: len(inherited)] = inherited
            origins[copy.target] = source
            targets.append(copy.target * self.page_size + np.arange(copy.tokens))
        return self._tensor(np.concatenate(list(origins.values()))), self._tensor(np.concatenate(targets))

    def _tensor(self, values: NDArray) -> Tensor:
        return torch.from_numpy(values.astype(np.int64)).to(self.device)


def _slots(table: NDArray[np.int32], positions: Int, page_size: int) -> Int:
    return table[positions // page_size].astype(np.int64) * page_size + positions % page_size
