"""Decode steps of an unchanging batch, as arrays: no Python per request and step.

Once every running sequence waits for one free token and none can be admitted, the following steps differ only in their
tokens. A run keeps what a step needs in arrays; scheduler, sequences and answers learn of the tokens when the run ends:
when a sequence ends, pages run out, or the engine must look at its sequences for another reason.

On a GPU the tokens of a step are read when the next step is queued already, so that the GPU does not wait for the host;
what a sequence is given behind its end is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from spark_llm.kernels.cascade import table_order
from spark_llm.serving.cache.pages import Pages
from spark_llm.serving.generation import Generation
from spark_llm.serving.host_copy import HostCopy
from spark_llm.serving.model_runner import ModelRunner
from spark_llm.serving.scheduler.scheduler import Scheduler
from spark_llm.serving.scheduler.sequence import Sequence

if TYPE_CHECKING:
    from spark_llm.kernels.decode_batch import DecodeBatch
    from spark_llm.serving.device_decode import DeviceBatch

MIN_SEQUENCES = 8
"""Fewer are not worth the start of a run."""
LOOK_AROUND = 16
"""Steps after which a run ends in any case while a sequence waits that the policy, not the room, may keep waiting."""

Row = tuple[Sequence, Generation]
Tokens = NDArray[np.int64]


class DecodeRun:
    """The running sequences, each of which has all but its last token computed.

    `stop_ids` are the tokens that end an answer.
    """

    def __init__(self, rows: SequenceOf[Row], scheduler: Scheduler, runner: ModelRunner, stop_ids: Tokens) -> None:
        order = table_order([sequence.table for sequence, _ in rows])
        self._rows = [rows[i] for i in order]
        self._scheduler, self._runner, self._stop_ids = scheduler, runner, stop_ids
        self._pages: list[list[int]] = [[] for _ in rows]
        self._tokens: list[Tokens] = []
        sequences = [sequence for sequence, _ in self._rows]
        last = np.array([sequence.tokens[-1] for sequence in sequences], np.int64)
        self._last = torch.from_numpy(last).to(runner.device)
        self._queued: list[HostCopy] = []  # steps whose tokens are not read yet
        self._steps = 0
        self._shortest = min(generation.left for _, generation in self._rows)
        if scheduler.waiting and len(rows) < scheduler.max_running:
            self._shortest = min(self._shortest, LOOK_AROUND)
        self._next = np.array([sequence.computed for sequence in sequences], np.int64)
        self._batch: DecodeBatch | DeviceBatch | None = None
        self.waiting = len(scheduler.waiting)
        self.ended = False

    @classmethod
    def worthwhile(cls, rows: SequenceOf[Row], runner: ModelRunner) -> bool:
        """Whether all rows are free greedy text, computed but for the last token, within every window of the model."""
        reach = max((len(sequence) for sequence, _ in rows), default=0) + runner.decode_room
        return (
            len(rows) >= MIN_SEQUENCES
            and all(not window or window >= reach for window in runner.windows)
            and all(len(s) == s.computed + 1 and generation.plain for s, generation in rows)
        )

    @property
    def reads_late(self) -> bool:
        """Whether a step's tokens are read after the next one is queued."""
        return self._runner.device.type == "cuda"

    def step(self) -> bool:
        """Compute one more token of each row; False, and nothing done, where pages are missing."""
        spent = self._batch is not None and not self._batch.room
        # after the room of a batch a window may be reached
        begun = None if spent and any(self._runner.windows) else self._begin_pages()
        if begun is None:
            self.ended = True
            return False
        if self._batch is None or spent:
            self._batch = self._runner.decode_batch(self._tables(), self._next)
        else:
            self._batch.advance(begun)
        self._queued.append(self._runner.decode(self._last, self._batch))
        self._last = self._queued[-1].tensor
        self._next = self._next + 1
        self._steps += 1
        self._read(keep=int(self.reads_late))
        self.ended |= self._steps == self._shortest
        return True

    def _read(self, *, keep: int) -> None:
        """Read the tokens of all but the latest `keep` steps."""
        while len(self._queued) > keep:
            self._tokens.append(self._queued.pop(0).read())
            self.ended |= bool(np.isin(self._tokens[-1], self._stop_ids).any())

    def end(self) -> list[Row]:
        """Tell sequences, answers and scheduler of the tokens; returns the rows whose answers have ended."""
        self._read(keep=0)
        if not self._tokens:
            return []
        tokens = np.stack(self._tokens, axis=1)
        stops = np.isin(tokens, self._stop_ids)
        counts = np.where(stops.any(axis=1), stops.argmax(axis=1) + 1, tokens.shape[1]).tolist()
        ended = []
        for (sequence, generation), pages, taken, count in zip(
            self._rows, self._pages, tokens.tolist(), counts, strict=True
        ):
            row = taken[:count]
            self._scheduler.decoded(sequence, len(row), np.array(pages, np.int32))
            generation.tokens += row[:-1]
            sequence.extend([*row[:-1], *generation.extend(row[-1])])
            if generation.finish_reason is not None:
                ended.append((sequence, generation))
        return ended

    def _tables(self) -> list[Pages]:
        pairs = zip(self._rows, self._pages, strict=True)
        return [np.append(sequence.table, np.array(pages, np.int32)) for (sequence, _), pages in pairs]

    def _begin_pages(self) -> dict[int, int] | None:
        """Give a page to each row whose next position begins one; None, and nothing taken, where there are too few."""
        rows = np.flatnonzero(self._next % self._runner.page_size == 0).tolist()
        if not rows:
            return {}
        pages = self._scheduler.cache.allocate(len(rows))
        if pages is None:
            return None
        begun = dict(zip(rows, pages.tolist(), strict=True))
        for row, page in begun.items():
            self._pages[row].append(page)
        return begun
