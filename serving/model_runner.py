"""Turns a scheduled step into tensors and runs the decoder on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from spark_llm.kernels.cascade import Query, table_order
from spark_llm.kernels.decode_batch import AHEAD, DecodeBatch, HostDecodeBatch
from spark_llm.kernels.dispatch import use_triton
from spark_llm.kernels.paged_attention import PagedBatch, use_compiled_attention
from spark_llm.serving.cache.pages import Pages
from spark_llm.serving.models.decoder import Decoder, KVCache, StepInput
from spark_llm.serving.scheduler.scheduler import Chunk, PageCopy, Step
from torch import Tensor

if TYPE_CHECKING:
    from spark_llm.serving.device_decode import DeviceBatch, DeviceDecode

Int = NDArray[np.int64]


class ModelRunner:
    """A decoder and its KV cache, whose last page is spare: it belongs to no sequence."""

    def __init__(self, decoder: Decoder, cache: KVCache, *, max_running: int = 256, max_length: int = 4096) -> None:
        self.decoder, self.cache = decoder, cache
        self.page_size = cache.k.shape[2]
        self.device, self.dtype = cache.k.device, cache.k.dtype
        self.num_pages = cache.k.shape[1] - 1
        self.windows = sorted(set(decoder.config.windows) or {0})
        self._device_decode: DeviceDecode | None = None
        if use_triton(cache.k):
            from spark_llm.serving.device_decode import DeviceDecode

            self._device_decode = DeviceDecode(
                decoder, cache, self.num_pages, windows=self.windows, most_rows=max_running, max_length=max_length
            )

    def run(self, step: Step) -> tuple[list[Chunk], Tensor]:
        """Compute the step; returns the chunks whose next token is due and their logits [n, vocab] in float32."""
        asked, step_input = self._step_input(step)
        return asked, self.decoder.forward(step_input, self.cache)

    def decode(self, tokens: Tensor, batch: DecodeBatch | DeviceBatch) -> Tensor:
        """Compute one token [R] of each request of the batch; returns logits [R, vocab], valid until the next call."""
        if not isinstance(batch, DecodeBatch):
            assert self._device_decode is not None
            return self._device_decode.run(tokens, batch)
        return self.decoder.forward(self._decode_input(tokens, batch), self.cache)

    def decode_beside(self, tokens: Tensor, batch: DecodeBatch, step: Step) -> tuple[Tensor, list[Chunk], Tensor]:
        """`decode` and `run` at once: the logits of the batch, and what `run` returns."""
        decoding = self._decode_input(tokens, batch)
        asked, beside = self._step_input(step)
        assert isinstance(beside.logit_rows, Tensor), "those of some rows"
        both = replace(
            beside,
            token_ids=torch.cat([decoding.token_ids, beside.token_ids]),
            positions=torch.cat([decoding.positions, beside.positions]),
            slots=torch.cat([decoding.slots, beside.slots]),
            logit_rows=torch.cat([torch.arange(len(tokens)), beside.logit_rows + len(tokens)]),
            decode_rows=len(tokens),
            decode_batch=batch.batch,
        )
        logits = self.decoder.forward(both, self.cache)
        return logits[: len(tokens)], asked, logits[len(tokens) :]

    @property
    def decode_room(self) -> int:
        """Tokens by which a sequence may grow within one decode batch, before its windows are looked at again."""
        return AHEAD * self.page_size

    @property
    def elastic(self) -> bool:
        """Whether decode batches are `HostDecodeBatch`: requests leave and join them, and steps are computed beside."""
        compiled = use_compiled_attention(self.decoder.config.head_dim, self.dtype, self.device)
        return compiled and self._device_decode is None

    def decode_batch(self, tables: Sequence[Pages], positions: Int) -> DecodeBatch | DeviceBatch:
        if self._device_decode is not None:
            return self._device_decode.batch(tables, positions)
        config = self.decoder.config
        if self.elastic:
            return HostDecodeBatch(tables, positions, self.page_size, group=config.num_heads // config.num_kv_heads)
        return DecodeBatch(tables, positions, self.page_size, dtype=self.dtype, device=self.device)

    def _decode_input(self, tokens: Tensor, batch: DecodeBatch) -> StepInput:
        batches = dict.fromkeys(self.windows, batch.batch)
        return StepInput(
            token_ids=tokens,
            positions=self._tensor(batch.positions),
            slots=self._tensor(batch.slots()),
            copies=None,
            batches=batches,
            logit_rows=slice(None),
            logit_batches=batches,
        )

    def _step_input(self, step: Step) -> tuple[list[Chunk], StepInput]:
        """The chunks whose next token is due, and the input in which they stand in the same order."""
        chunks = [step.chunks[i] for i in table_order([chunk.table for chunk in step.chunks])]
        due = [i for i, chunk in enumerate(chunks) if chunk.is_last]
        starts = np.array([chunk.start for chunk in chunks])
        lengths = np.array([chunk.end for chunk in chunks]) - starts
        ends = lengths.cumsum()
        rows = ends - lengths
        positions = np.arange(ends[-1]) + np.repeat(starts - rows, lengths)
        queries = [Query(row, c.start, c.end, c.table) for row, c in zip(rows.tolist(), chunks, strict=True)]
        batches = self._batches(queries)
        last = [Query(row, chunks[i].end - 1, chunks[i].end, chunks[i].table) for row, i in enumerate(due)]
        step_input = StepInput(
            token_ids=self._tensor(np.concatenate([chunk.tokens for chunk in chunks])),
            positions=self._tensor(positions),
            slots=self._tensor(self._slots(chunks, lengths, positions)),
            copies=self._copies(step.copies),
            batches=batches,
            logit_rows=self._tensor(ends[due] - 1),
            logit_batches=batches if len(due) == ends[-1] else self._batches(last) if due else {},
        )
        return [chunks[i] for i in due], step_input

    def _slots(self, chunks: list[Chunk], lengths: Int, positions: Int) -> Int:
        tables = np.concatenate([chunk.table for chunk in chunks]).astype(np.int64)
        sizes = np.array([len(chunk.table) for chunk in chunks])
        page, offset = np.divmod(positions, self.page_size)
        return tables[page + np.repeat(sizes.cumsum() - sizes, lengths)] * self.page_size + offset

    def _batches(self, queries: list[Query]) -> dict[int, PagedBatch]:
        """One for each window of the layers; windows that reach over every context share the one without."""
        longest = max(q.end for q in queries)
        batches = {}
        for window in sorted({0 if window >= longest else window for window in self.windows}):
            batches[window] = PagedBatch.build(
                queries,
                self.page_size,
                dtype=self.dtype,
                device=self.device,
                window=window,
                heads=self.decoder.config.heads,
            )
        return {window: batches[0 if window >= longest else window] for window in self.windows}

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
        return torch.from_numpy(values.astype(np.int64, copy=False)).to(self.device)
