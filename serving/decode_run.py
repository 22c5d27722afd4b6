"""Decode steps of many sequences as arrays: next to no Python per request and step.

Sequences that wait for one token, which nothing forces, differ from step to step in their tokens only. A run keeps what
a step needs of them in arrays; scheduler, sequences and answers learn of the tokens when a sequence leaves the run:
when its answer ends, or a grammar decides what follows. Where the model's kernels allow it (`ModelRunner.elastic`),
the run goes on without it, others join, and prompts are computed in the same step beside it. Elsewhere the run ends
instead, and begins anew when again every running sequence waits for one token.

On a GPU the tokens of a step are read when the next step is queued already, so that the GPU does not wait for the host;
what a sequence is given behind its end is dropped. Masks depend on the tokens: under a grammar they are read at once.
"""

from __future__ import annotations

from collections.abc import Sequence as SequenceOf
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from spark_llm.kernels.cascade import table_order
from spark_llm.kernels.decode_batch import DecodeBatch, HostDecodeBatch
from spark_llm.serving.generation import Generation
from spark_llm.serving.grammar import GrammarBatch, GrammarCompiler
from spark_llm.serving.host_copy import HostCopy
from spark_llm.serving.model_runner import ModelRunner
from spark_llm.serving.sampling import Sampler
from spark_llm.serving.scheduler.policy import CHARGED_TOKENS
from spark_llm.serving.scheduler.scheduler import Chunk, Scheduler, Step
from spark_llm.serving.scheduler.sequence import Sequence
from spark_llm.serving.stop_strings import StopStrings
from torch import Tensor

if TYPE_CHECKING:
    from spark_llm.serving.device_decode import DeviceBatch

MIN_SEQUENCES = 8
"""Fewer are not worth the start of a run."""
LOOK_AROUND = 16
"""Steps after which a run that is not elastic ends while a sequence waits that the policy, not the room, may keep."""

Row = tuple[Sequence, Generation]
Tokens = NDArray[np.int64]
Rows = NDArray[np.bool_]


class DecodeRun:
    """Running sequences, each of which has all but its last token computed.

    Parameters
    ----------
    rows : sequence of Row
        With which the run begins; all must be `ready`.
    stop_ids : array of int64
        The tokens that end an answer.
    grammars : GrammarCompiler, optional
        Of those that rows have, if any.
    """

    def __init__(
        self,
        rows: SequenceOf[Row],
        scheduler: Scheduler,
        runner: ModelRunner,
        stop_ids: Tokens,
        grammars: GrammarCompiler | None = None,
    ) -> None:
        self._scheduler, self._runner, self._compiler = scheduler, runner, grammars
        self._ends = np.zeros(runner.decoder.config.vocab_size, bool)
        self._ends[stop_ids[stop_ids < len(self._ends)]] = True
        self._grammars: GrammarBatch | None = None
        self._queued: list[HostCopy] = []  # steps whose tokens are not read yet
        self._steps = self._joined = 0
        self._batch: DecodeBatch | DeviceBatch | None = None
        self._finished: list[Row] = []
        self._waiting = len(scheduler.waiting)
        self._look_around = bool(scheduler.waiting) and len(rows) < scheduler.max_running
        self.ended = False
        self._rows = list(rows)
        self._pages: list[list[int]] = [[] for _ in rows]
        self._stops = _StopTable()
        self._sampler = Sampler([generation.draw for _, generation in rows], runner.device)
        self._known, self._last = self._columns(rows)
        scheduler.decode(sequence for sequence, _ in rows)

    @staticmethod
    def ready(row: Row, runner: ModelRunner) -> bool:
        """Whether a row is computed but for its last token, and stays within every window of the model."""
        sequence, generation = row
        reach = len(sequence) + runner.decode_room
        return (
            len(sequence) == sequence.computed + 1
            and generation.runs
            and all(not window or window >= reach for window in runner.windows)
        )

    @property
    def reads_late(self) -> bool:
        """Whether a step's tokens are read after the next one is queued."""
        return self._runner.device.type == "cuda" and self._grammars is None

    @property
    def elastic(self) -> bool:
        """Whether rows may leave and join, and others be computed beside them."""
        return self._runner.elastic and not self.reads_late

    def look_around(self) -> None:
        """End the run, unless it is elastic, where one that waits may be admitted now."""
        if not self.elastic:
            came = self._waiting != len(self._scheduler.waiting)
            self.ended |= came or (self._look_around and self._steps == LOOK_AROUND)

    def begin_step(self) -> bool:
        """Find pages for the next token of each row; False, and the run ends, where they are missing."""
        spent = self._batch is not None and not self._batch.room
        # after the room of a batch a window may be reached
        begun = None if self.ended or (spent and any(self._runner.windows)) else self._begin_pages()
        if begun is None:
            self.ended = True
        elif self._batch is None or spent or self._joined > len(self._rows) // 2:
            self._arrange()
        else:
            self._batch.advance(begun)
        return not self.ended

    def compute(self, step: Step) -> tuple[list[Chunk], Tensor]:
        """Compute one more token of each row, and a step beside them; returns of it what `ModelRunner.run` does."""
        assert self._batch is not None, "`begin_step` comes first"
        if step.chunks:
            assert isinstance(self._batch, DecodeBatch), "not elastic"
            logits, asked, beside = self._runner.decode_beside(self._last, self._batch, step)
        else:
            logits = self._runner.decode(self._last, self._batch)
            asked, beside = [], logits[:0]
        masks = None if self._grammars is None else self._grammars.masks
        self._last = self._sampler.choose(logits, masks, torch.from_numpy(self._known.place.copy()))
        self._queued.append(HostCopy(self._last))
        self._known.position += 1
        self._steps += 1
        self._read(keep=int(self.reads_late))
        self.ended |= not len(self._rows) or (self.reads_late and self._steps >= self._known.left.min())
        return asked, beside

    def join(self, rows: SequenceOf[Row]) -> None:
        """Take in rows that are `ready`, behind the others."""
        assert isinstance(self._batch, HostDecodeBatch), "not elastic"
        columns, last = self._columns(rows)
        self._rows += rows
        self._pages += [[] for _ in rows]
        self._known.join(columns)
        self._last = torch.cat([self._last, last])
        self._sampler.join([generation.draw for _, generation in rows])
        self._batch.join([sequence.table for sequence, _ in rows], columns.position - 1)
        self._joined += len(rows)
        self._scheduler.decode(sequence for sequence, _ in rows)

    def take_finished(self) -> list[Row]:
        """The rows whose answers have ended since the last call."""
        finished, self._finished = self._finished, []
        return finished

    def end(self) -> list[Row]:
        """Tell sequences, answers and scheduler of the tokens; returns the rows whose answers have ended."""
        self._read(keep=0)
        known = self._known
        stops = self._ends[known.tokens] & (np.arange(known.tokens.shape[1]) < known.taken[:, None])
        counts = np.where(stops.any(axis=1), stops.argmax(axis=1) + 1, known.taken)
        for row, (_, generation) in enumerate(self._rows):
            self._end_row(row, int(known.told[row] if generation.finish_reason is not None else counts[row]))
        self._rows = []
        return self.take_finished()

    def _columns(self, rows: SequenceOf[Row]) -> tuple[_Columns, Tensor]:
        """What is known of rows that join, and their last tokens."""
        columns = _Columns(len(rows))
        columns.position[:] = [sequence.computed for sequence, _ in rows]
        columns.left[:] = [generation.left for _, generation in rows]
        columns.stops[:] = [self._stops.number(generation.stops) for _, generation in rows]
        columns.incomplete[:] = [generation.incomplete for _, generation in rows]
        grammars = {i: generation.grammar for i, (_, generation) in enumerate(rows) if generation.grammar is not None}
        if grammars and self._compiler is not None:
            self._grammars = self._grammars or self._compiler.batch(torch.get_num_threads())
            columns.place[[*grammars]] = self._grammars.join([*grammars.values()])
        return columns, torch.tensor([int(sequence.tokens[-1]) for sequence, _ in rows]).to(self._runner.device)

    def _arrange(self) -> None:
        """A new batch, in which rows that share pages stand together."""
        pairs = zip(self._rows, self._pages, strict=True)
        tables = [np.append(sequence.table, np.array(pages, np.int32)) for (sequence, _), pages in pairs]
        if not self._queued:
            order = table_order(tables)
            tables = [tables[i] for i in order]
            self._take(np.array(order))
        self._batch, self._joined = self._runner.decode_batch(tables, self._known.position), 0

    def _take(self, rows: Tokens) -> None:
        """Go on with these rows, in this order."""
        order = rows.tolist()
        self._rows, self._pages = [self._rows[row] for row in order], [self._pages[row] for row in order]
        self._known.take(rows)
        self._sampler.take(rows)
        self._last = self._last[torch.from_numpy(rows).to(self._last.device)]

    def _read(self, *, keep: int) -> None:
        """Read the tokens of all but the latest `keep` steps, and see who leaves."""
        while len(self._queued) > keep:
            tokens, known = self._queued.pop(0).read(), self._known
            known.note(tokens)
            leaving = self._ends[tokens]
            for row in np.flatnonzero(self._stops.may_end(known, tokens) & ~leaving).tolist():
                self._tell(row)
                generation = self._rows[row][1]
                known.incomplete[row], leaving[row] = generation.incomplete, generation.finish_reason is not None
            self._advance_grammars(tokens, leaving)
            leaving |= known.left == known.taken
            if self._scheduler.waiting:
                for row in np.flatnonzero(known.taken % CHARGED_TOKENS == 0).tolist():
                    self._scheduler.serve_decoding(self._rows[row][0], int(known.taken[row]))
            if leaving.any():
                self._leave(leaving)

    def _advance_grammars(self, tokens: Tokens, leaving: Rows) -> None:
        """Where a grammar decides what follows, or ends, a row leaves."""
        rows = np.flatnonzero((self._known.place >= 0) & ~leaving)
        if self._grammars is None or not len(rows):
            return
        places = self._known.place[rows]
        decided, refused = self._grammars.advance(tokens[rows].tolist(), places.tolist())
        leaving[rows] |= np.isin(places, decided + refused)
        self._known.refused[rows] = np.isin(places, refused)

    def _leave(self, rows: Rows) -> None:
        """Let go of rows [R], or end the run where none can leave it."""
        if not self.elastic:
            self.ended = True
            return
        assert isinstance(self._batch, HostDecodeBatch), "not elastic"
        for row in np.flatnonzero(rows).tolist():
            self._end_row(row, int(self._known.taken[row]))
        self._take(np.flatnonzero(~rows))
        self._batch.keep(~rows)

    def _tell(self, row: int, count: int | None = None) -> None:
        """Tell a row's answer of its tokens up to `count`."""
        sequence, generation = self._rows[row]
        count = int(self._known.taken[row]) if count is None else count
        tokens = self._known.tokens[row, self._known.told[row] : count].tolist()
        self._known.told[row] = count
        if tokens:
            sequence.extend(generation.resume(tokens, refused=bool(self._known.refused[row])))

    def _end_row(self, row: int, count: int) -> None:
        """Give a row's tokens to scheduler, sequence and answer."""
        sequence, generation = self._rows[row]
        if self._grammars is not None and self._known.place[row] >= 0:
            self._grammars.leave(int(self._known.place[row]))
        self._scheduler.decoded(sequence, count, np.array(self._pages[row], np.int32))
        self._tell(row, count)
        if generation.finish_reason is not None:
            self._finished.append((sequence, generation))

    def _begin_pages(self) -> dict[int, int] | None:
        """Give a page to each row whose next position begins one; None, and nothing taken, where there are too few."""
        rows = np.flatnonzero(self._known.position % self._runner.page_size == 0).tolist()
        if not rows:
            return {}
        pages = self._scheduler.cache.allocate(len(rows))
        if pages is None:
            return None
        begun = dict(zip(rows, pages.tolist(), strict=True))
        for row, page in begun.items():
            self._pages[row].append(page)
        return begun


class _Columns:
    """What a run knows of its rows [R]: an array for each attribute, and the `tokens` [R, n] that were read.

    `position` of the next token to be computed; tokens that were `left` when the row joined, how many were `taken`
    since, and how many of these its answer was `told` of; `place` of its grammar and number of its `stops` (-1: none);
    whether its text is `incomplete` inside a character, as far as it was read; whether its grammar `refused` a token.
    """

    FIELDS: ClassVar = [
        *((name, np.int64) for name in ("position", "left", "taken", "told", "place", "stops")),
        *((name, np.bool_) for name in ("incomplete", "refused")),
    ]

    def __init__(self, rows: int) -> None:
        self._set(np.zeros(rows, self.FIELDS))
        self.place[:] = self.stops[:] = -1
        self.tokens = np.zeros((rows, 16), np.int32)

    def note(self, tokens: Tokens) -> None:
        """One more token [R] of each row was read."""
        if self.taken.max() == self.tokens.shape[1]:
            self._widen(2 * self.tokens.shape[1])
        self.tokens[np.arange(len(tokens)), self.taken] = tokens
        self.taken += 1

    def take(self, rows: Tokens) -> None:
        """Go on with these rows, in this order."""
        self._set(self._records.take(rows))
        self.tokens = self.tokens.take(rows, axis=0)

    def join(self, other: _Columns) -> None:
        """Take in other rows behind these."""
        other._widen(self.tokens.shape[1])
        self._set(np.concatenate([self._records, other._records]))
        self.tokens = np.concatenate([self.tokens, other.tokens])

    def _set(self, records: NDArray[np.void]) -> None:
        self._records = records
        self.position, self.left, self.taken, self.told, self.place, self.stops, self.incomplete, self.refused = (
            records[name] for name, _ in self.FIELDS
        )

    def _widen(self, width: int) -> None:
        wide = np.zeros((len(self.tokens), width), np.int32)
        wide[:, : self.tokens.shape[1]] = self.tokens
        self.tokens = wide


class _StopTable:
    """The tokens in which some stop string of a row may end."""

    def __init__(self) -> None:
        self._kinds: list[StopStrings] = []
        self._table: Rows = np.zeros((0, 0), bool)

    def number(self, stops: StopStrings | None) -> int:
        if stops is None:
            return -1
        known = next((i for i, kind in enumerate(self._kinds) if kind is stops), None)
        if known is not None:
            return known
        self._kinds.append(stops)
        self._table = np.stack([kind.may_end for kind in self._kinds])
        return len(self._kinds) - 1

    def may_end(self, rows: _Columns, tokens: Tokens) -> Rows:
        """Whether one of the row may end in its token, or in one that it completes."""
        if not self._kinds:
            return np.zeros(len(tokens), bool)
        return (rows.stops >= 0) & (self._table[rows.stops, tokens] | rows.incomplete)
