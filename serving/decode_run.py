"""Decode steps of an unchanging batch, as arrays: next to no Python per request and step.

Once every running sequence waits for one token that nothing forces and none can be admitted, the following steps differ
only in their tokens. A run keeps what a step needs in arrays; scheduler, sequences and answers learn of the tokens when
a row's answer ends, or when the run does: when pages run out, a grammar decides what follows, or the engine must look
at its sequences for another reason. A row whose answer has ended is computed on while nobody waits for its place.

On a GPU the tokens of a step are read when the next step is queued already, so that the GPU does not wait for the host;
what a sequence is given behind its end is dropped. Masks depend on the tokens: under a grammar they are read at once.
"""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from spark_llm.kernels.cascade import table_order
from spark_llm.kernels.decode_batch import DecodeBatch
from spark_llm.serving.cache.pages import Pages
from spark_llm.serving.generation import Generation
from spark_llm.serving.grammar import GrammarCompiler
from spark_llm.serving.host_copy import HostCopy
from spark_llm.serving.model_runner import ModelRunner
from spark_llm.serving.sampling import Sampler
from spark_llm.serving.scheduler.scheduler import Scheduler
from spark_llm.serving.scheduler.sequence import Sequence

if TYPE_CHECKING:
    from spark_llm.serving.device_decode import DeviceBatch

MIN_SEQUENCES = 8
"""Fewer are not worth the start of a run."""
LOOK_AROUND = 16
"""Steps after which a run ends in any case while a sequence waits that the policy, not the room, may keep waiting."""
MOST_ENDED = 0.5
"""Share of the rows whose answers may have ended before the run does."""

Row = tuple[Sequence, Generation]
Tokens = NDArray[np.int64]


class DecodeRun:
    """The running sequences, each of which has all but its last token computed.

    `stop_ids` are the tokens that end an answer; `grammars` is the compiler of those that rows have, if any.
    """

    def __init__(
        self,
        rows: SequenceOf[Row],
        scheduler: Scheduler,
        runner: ModelRunner,
        stop_ids: Tokens,
        grammars: GrammarCompiler | None = None,
    ) -> None:
        order = table_order([sequence.table for sequence, _ in rows])
        self._rows = [rows[i] for i in order]
        self._scheduler, self._runner, self._stop_ids = scheduler, runner, stop_ids
        self._pages: list[list[int]] = [[] for _ in rows]
        self._tokens: list[Tokens] = []
        sequences, generations = zip(*self._rows, strict=True)
        last = np.array([sequence.tokens[-1] for sequence in sequences], np.int64)
        self._last = torch.from_numpy(last).to(runner.device)
        self._queued: list[HostCopy] = []  # steps whose tokens are not read yet
        self._steps = 0
        self._left = np.array([generation.left for generation in generations])
        self._look_around = bool(scheduler.waiting) and len(rows) < scheduler.max_running
        self._next = np.array([sequence.computed for sequence in sequences], np.int64)
        self._batch: DecodeBatch | DeviceBatch | None = None
        self._sampler = Sampler([generation.draw for generation in generations], runner.device)
        self._watched = _Watched(generations)
        self._told = np.zeros(len(rows), np.int64)  # tokens that a row's answer knows of
        self._constrained = [i for i, generation in enumerate(generations) if generation.grammar is not None]
        texts = [generation.grammar for generation in generations if generation.grammar is not None]
        self._grammars = (
            grammars.advance_together(texts, torch.get_num_threads()) if grammars is not None and texts else None
        )
        self._mask_of = torch.full((len(rows),), -1)
        self._mask_of[self._constrained] = torch.arange(len(texts))
        self._refused: set[int] = set()
        self._over = np.zeros(len(rows), bool)  # rows whose answers have ended
        self._finished: list[Row] = []
        self.waiting = len(scheduler.waiting)
        self.ended = False

    @classmethod
    def worthwhile(cls, rows: SequenceOf[Row], runner: ModelRunner) -> bool:
        """Whether all rows are computed but for the last token, and stay within every window of the model."""
        reach = max((len(sequence) for sequence, _ in rows), default=0) + runner.decode_room
        return (
            len(rows) >= MIN_SEQUENCES
            and all(not window or window >= reach for window in runner.windows)
            and all(len(s) == s.computed + 1 and generation.runs for s, generation in rows)
        )

    @property
    def reads_late(self) -> bool:
        """Whether a step's tokens are read after the next one is queued."""
        return self._runner.device.type == "cuda" and self._grammars is None

    def step(self) -> bool:
        """Compute one more token of each row; False, and nothing done, where pages are missing."""
        spent = self._batch is not None and not self._batch.room
        # after the room of a batch a window may be reached, and those that have ended are better left out
        again = spent and (any(self._runner.windows) or self._over.any())
        begun = None if again else self._begin_pages()
        if begun is None:
            self.ended = True
            return False
        if self._batch is None or spent:
            self._batch = self._runner.decode_batch(self._tables(), self._next)
        else:
            self._batch.advance(begun)
        logits = self._runner.decode(self._last, self._batch)
        masks = None if self._grammars is None else self._grammars.masks
        self._last = self._sampler.choose(logits, masks, self._mask_of)
        self._queued.append(HostCopy(self._last))
        self._next = self._next + 1
        self._steps += 1
        self._read(keep=int(self.reads_late))
        lasting = self._left[~self._over]
        self.ended |= not len(lasting) or self._steps >= lasting.min()
        self.ended |= self._look_around and self._steps == LOOK_AROUND
        return True

    def take_finished(self) -> list[Row]:
        """The rows whose answers have ended since the last call, while the run goes on."""
        finished, self._finished = self._finished, []
        return finished

    def _read(self, *, keep: int) -> None:
        """Read the tokens of all but the latest `keep` steps, and see whose answers end."""
        while len(self._queued) > keep:
            tokens = self._queued.pop(0).read()
            self._tokens.append(tokens)
            over = np.isin(tokens, self._stop_ids) & ~self._over
            for row in np.flatnonzero(self._watched.may_end(tokens) & ~over & ~self._over).tolist():
                self._tell(row)
                generation = self._rows[row][1]
                self._watched.incomplete[row] = generation.incomplete
                over[row] = generation.finish_reason is not None
            self._advance_grammars(tokens, over)
            over |= (self._left == len(self._tokens)) & ~self._over
            if over.any():
                self._retire(np.flatnonzero(over).tolist())

    def _advance_grammars(self, tokens: Tokens, over: NDArray[np.bool_]) -> None:
        """Where a grammar decides what follows, or ends, the run does."""
        if self._grammars is None:
            return
        at = [i for i, row in enumerate(self._constrained) if not (over[row] or self._over[row])]
        decided, refused = self._grammars.advance([int(tokens[self._constrained[i]]) for i in at], at)
        self._refused.update(self._constrained[i] for i in refused)
        self.ended |= bool(decided or refused)

    def _retire(self, rows: list[int]) -> None:
        """Take leave of rows whose answers have ended, or end the run: others wait for their place, or few are left."""
        few = self._over.sum() + len(rows) > MOST_ENDED * len(self._rows)
        if self.ended or self.waiting or few or not isinstance(self._batch, DecodeBatch):
            self.ended = True
            return
        self._batch.retire(rows, self._runner.num_pages * self._runner.page_size)
        for row in rows:
            self._end_row(row, len(self._tokens))
            self._over[row] = True

    def _tell(self, row: int, count: int | None = None) -> None:
        """Tell a row's answer of its tokens up to `count`."""
        sequence, generation = self._rows[row]
        tokens = [int(taken[row]) for taken in self._tokens[self._told[row] : count]]
        self._told[row] += len(tokens)
        if tokens:
            sequence.extend(generation.resume(tokens, refused=row in self._refused))

    def _end_row(self, row: int, count: int) -> None:
        """Give a row's tokens to scheduler, sequence and answer."""
        sequence, generation = self._rows[row]
        self._scheduler.decoded(sequence, count, np.array(self._pages[row], np.int32))
        self._tell(row, count)
        if generation.finish_reason is not None:
            self._finished.append((sequence, generation))

    def end(self) -> list[Row]:
        """Tell sequences, answers and scheduler of the tokens; returns the rows whose answers have ended."""
        self._read(keep=0)
        if self._tokens:
            stops = np.isin(np.stack(self._tokens, axis=1), self._stop_ids)
            counts = np.where(stops.any(axis=1), stops.argmax(axis=1) + 1, stops.shape[1]).tolist()
            for row in np.flatnonzero(~self._over).tolist():
                ended = self._rows[row][1].finish_reason is not None
                self._end_row(row, int(self._told[row]) if ended else counts[row])
        return self.take_finished()

    def _tables(self) -> list[Pages]:
        pairs = zip(self._rows, self._pages, strict=True)
        return [np.append(sequence.table, np.array(pages, np.int32)) for (sequence, _), pages in pairs]

    def _begin_pages(self) -> dict[int, int] | None:
        """Give a page to each row whose next position begins one; None, and nothing taken, where there are too few."""
        rows = np.flatnonzero((self._next % self._runner.page_size == 0) & ~self._over).tolist()
        if not rows:
            return {}
        pages = self._scheduler.cache.allocate(len(rows))
        if pages is None:
            return None
        begun = dict(zip(rows, pages.tolist(), strict=True))
        for row, page in begun.items():
            self._pages[row].append(page)
        return begun


class _Watched:
    """The rows with stop strings: where the answer must be looked at after a token."""

    def __init__(self, generations: SequenceOf[Generation]) -> None:
        kinds = {id(generation.stops): generation.stops for generation in generations if generation.stops is not None}
        numbers = {one: number for number, one in enumerate(kinds)}
        self._rows = np.array([row for row, g in enumerate(generations) if g.stops is not None], np.int64)
        self._kind_of = np.array([numbers[id(generations[row].stops)] for row in self._rows], np.int64)
        self._may_end = np.stack([stops.may_end for stops in kinds.values()]) if kinds else None
        self.incomplete = np.array([generation.incomplete for generation in generations])

    def may_end(self, tokens: Tokens) -> NDArray[np.bool_]:
        """Whether a stop string of the row may end in its token."""
        found = np.zeros(len(tokens), bool)
        if self._may_end is not None:
            found[self._rows] = self._may_end[self._kind_of, tokens[self._rows]] | self.incomplete[self._rows]
        return found
