"""What a call will cost, from a sample of its distinct arguments, before anything is asked."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
from spark_llm.optimizer.cache_model import simulate_cache
from spark_llm.optimizer.cells import cells
from spark_llm.optimizer.columns import Column, Window
from spark_llm.optimizer.engine_profile import EngineProfile, Numbers
from spark_llm.optimizer.prefix_tree import prefix_counts, sampled_nodes, tree_size
from spark_llm.optimizer.prompts import Prompt
from spark_llm.optimizer.statistics import estimate_distinct
from spark_llm.optimizer.texts import PREFIX
from spark_llm.optimizer.typical_answer import typical_answer
from spark_llm.optimizer.window import plan_window

_CONSTANT = ""  # the piece that all prompts begin with; no segment is empty

CUT_OFF = 0.9
"""Of max_tokens: answers that take more on the mean were mostly cut off, and how long they would be is not known."""

FILLED = 3.0
"""Rows of a value, from which on the share of its repetitions that a plan serves hardly changes (docs/planner.md)."""

UNBOUNDED_ANSWER, LONG_ANSWER = 0.5, 64.0
"""Of max_tokens, and in tokens, what an answer is expected to take that nothing bounds and nobody measured yet; free
answers of the published benchmark take 16 to 107 (Liu et al., MLSys 2025, table 1)."""


def estimate_call(
    prompt: Prompt,
    window: Window,
    rows: float,
    distinct: float,
    known: Sequence[float] | None = None,
    engine: EngineProfile | None = None,
    streams: int = 1,
) -> dict[str, float]:
    """Expected work of a call whose distinct tuples are asked once each, in the planned order.

    Parameters
    ----------
    prompt : Prompt
        The call with its plan.
    window : Window
        A random sample of its distinct tuples, encoded under that plan, at least one.
    rows, distinct : float
        Rows of the whole input, and distinct tuples of arguments in it.
    known : sequence of float, optional
        Distinct values in the whole input of each column (`window.head`, then `window.cells`).
    engine : EngineProfile, optional
        By default one of 4 characters per token and an unbounded cache.
    streams : int
        Tasks that ask at the same time and so share the cache.

    Returns
    -------
    dict
        `rows`, `distinct`, `prompt_tokens`, of them `cached_tokens`, `output_tokens`; `tree_tokens`, of the prefix tree
        of all prompts: a cache that holds them loses none; `seconds` and `cost` where the engine's speed and prices
        are known.
    """
    engine = engine or EngineProfile()
    constant = engine.frame[0] + float(engine.count([prompt.call["instruction"]])[0])
    columns = [in_tokens(column, engine) for column in _columns(window)]
    lengths = sum((column.lengths[column.codes] for column in columns), np.zeros(window.rows))
    closing = float(engine.count([prompt.call.get("closing", "")])[0])
    last = _ending(window, engine) + closing + engine.frame[1]
    total = distinct * (constant + float(lengths.mean()) + last)
    tree = constant + distinct * last
    if columns:
        tree += _tree(prompt, columns, distinct, known)
    equal = max(total - tree, 0.0)
    cached = equal * kept(window, engine, constant, streams) if equal else 0.0
    output = distinct * _answer_tokens(prompt, engine)
    found = {"rows": rows, "distinct": distinct, "prompt_tokens": total, "cached_tokens": cached}
    found = {
        name: float(round(value)) for name, value in {**found, "output_tokens": output, "tree_tokens": tree}.items()
    }
    if engine.speed:
        found["seconds"] = round(engine.speed.seconds(total - cached, output), 3)
    if engine.prices:
        found["cost"] = engine.prices.cost(total, cached, output)
    return found


def _columns(window: Window) -> tuple[Column, ...]:
    return window.cells if window.head is None else (window.head, *window.cells)


def in_tokens(column: Column, engine: EngineProfile) -> Column:
    """The same column, measured in tokens, of which two cells share what they begin with. Of arrays these are elements,
    which are many tokens each: they, and where only numbers of tokens are known, take their share of the characters."""
    ends = "\n" if column.label == 0 else ",\n"
    texts = [text + ends for text in column.rendered]
    if engine.tokenize is None or column.elements:
        counts = engine.count(texts)
        scale = float(counts.sum()) / max(float(column.lengths.sum()), 1.0)
        return replace(column, lengths=counts, label=scale * column.label, reach=column.reach * scale)  # type: ignore[arg-type]
    tokenized = engine.tokenize(texts)
    parts = np.zeros((len(texts), PREFIX), np.int32)
    for row, tokens in zip(parts, tokenized, strict=True):
        row[: len(tokens)] = tokens[:PREFIX] + 1
    lengths = np.fromiter(map(len, tokenized), np.int32, len(texts))
    reach = np.broadcast_to(np.arange(PREFIX + 1), (len(texts), PREFIX + 1))
    return replace(column, lengths=lengths, label=0, reach=reach, texts=None, parts=parts)


def _ending(window: Window, engine: EngineProfile) -> float:
    """Tokens by which the object's end is longer than the end of a cell before others, after a sampled cell."""
    if not window.cells:
        return 0.0
    text = window.cells[-1].rendered[0]
    whole, inner = engine.count([text + window.end, text + ",\n"])
    return float(whole - inner)


def _tree(prompt: Prompt, columns: Sequence[Column], distinct: float, known: Sequence[float] | None) -> float:
    """Tokens of the prefix tree of all rows under the exact plan of their windows: the smaller of two.

    The tree of the global order is extrapolated level by level. And of the text that repeats, the windows' own plan
    shares about the part that it shares in the sample. That part falls while most values stand in one or two rows, for
    which no other value competes: until they stand in `FILLED`, it falls as from half of the sample to the whole.
    """
    size = tree_size(columns, prefix_counts(columns, distinct, known), sampled_nodes(columns))
    if prompt.spec.fixed_order:
        return size
    pinned, sampled = len(columns) - len(prompt.cells), len(columns[0].codes)
    share = _planned(columns, pinned)
    if distinct > sampled > 1:
        fall = max(_planned([column.part(np.arange(sampled // 2)) for column in columns], pinned) - share, 0.0)
        doublings = math.log2(min(max(FILLED / _copies(columns), 1.0), distinct / sampled))
        share = max(share - fall * doublings, 0.0)
    text = distinct * _text(columns) / sampled
    found = known or [estimate_distinct(column.codes, distinct) for column in columns]
    return min(size, text - share * max(text - _least(columns, found), 0.0))


def _planned(columns: Sequence[Column], pinned: int) -> float:
    """Of the text that repeats, the part that the exact plan shares."""
    repeated = _text(columns) - _least(columns, [len(np.unique(column.codes)) for column in columns])
    return plan_window(columns, range(len(columns)), pinned).hits / repeated if repeated > 0 else 0.0


def _copies(columns: Sequence[Column]) -> float:
    """Rows of a value on the mean, of the columns where values repeat."""
    values = [len(np.unique(column.codes)) for column in columns]
    repeating = [count for count in values if count < len(columns[0].codes)]
    return len(columns[0].codes) * len(repeating) / sum(repeating) if repeating else FILLED


def _least(columns: Sequence[Column], distinct: Sequence[float]) -> float:
    """Text that no order shares: of each column its distinct values, which begin alike as if it led."""
    return sum(
        tree_size([column], np.array([count]), sampled_nodes([column]))
        for column, count in zip(columns, distinct, strict=True)
    )


def _text(columns: Sequence[Column]) -> float:
    return float(sum(column.lengths[column.codes].sum() for column in columns))


def _answer_tokens(prompt: Prompt, engine: EngineProfile) -> float:
    """Mean tokens of an answer: as measured, else as its constraint says, else as answers of other calls."""
    most = float(prompt.call["max_tokens"])
    if engine.output is not None:
        return min(engine.output, most)
    if (texts := _likely_texts(prompt.call["constraint"])) is not None:
        return min(float(engine.count(texts).mean()), most)
    others = engine.lengths.get(prompt.call["constraint"]["kind"], ())
    likely = [most if mean > CUT_OFF * bound else min(mean, most) for mean, bound in others]
    return median(likely) if likely else min(most * UNBOUNDED_ANSWER, LONG_ANSWER)


def _likely_texts(constraint: Mapping[str, Any]) -> list[str] | None:
    """What answers may be; None where the constraint does not say. A regular expression is about as long as they."""
    if constraint["kind"] == "json_schema":
        return [json.dumps(typical_answer(json.loads(constraint["value"])), ensure_ascii=False)]
    if constraint["kind"] == "choices":
        return list(constraint["value"])
    return [constraint["value"]] if constraint["kind"] == "regex" else None


def kept(window: Window, engine: EngineProfile, constant: float, streams: int) -> float:
    """Of what all equal beginnings of the sorted sample are worth, the share that the engine's cache serves."""
    if engine.capacity is None and engine.block == 1 and not engine.minimum:
        return 1.0
    columns = _columns(window)
    rows = np.lexsort([column.codes for column in reversed(columns)]) if columns else np.arange(window.rows)
    segments = cells(window, rows)
    pieces = list(dict.fromkeys(piece for row in segments for piece in row))
    size = dict(zip(pieces, _whole(engine, pieces), strict=True)) | {_CONSTANT: round(constant)}
    prompts = [(_CONSTANT, *row) for row in segments]
    equal = simulate_cache(prompts, size.__getitem__).cached
    capacity = None if engine.capacity is None else engine.capacity // max(streams, 1)
    served = simulate_cache(prompts, size.__getitem__, capacity, engine.block, engine.minimum).cached
    return served / equal if equal else 1.0


def _whole(engine: EngineProfile, pieces: Sequence[str]) -> Sequence[int]:
    counted: Numbers = np.maximum(np.rint(engine.count(pieces)), 1).astype(np.int64)
    return counted.tolist()
