"""What a call will cost, from a sample of its distinct arguments, before anything is asked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

import numpy as np
from spark_llm.optimizer.arrangement import Blocks, arrange
from spark_llm.optimizer.cache_model import simulate_cache
from spark_llm.optimizer.cells import cells
from spark_llm.optimizer.columns import Column, Window
from spark_llm.optimizer.engine_profile import EngineProfile, Numbers
from spark_llm.optimizer.prefix_tree import prefix_counts, tree_size
from spark_llm.optimizer.prompts import Prompt
from spark_llm.optimizer.statistics import estimate_distinct
from spark_llm.optimizer.window import plan_window

_CONSTANT = ""  # the piece that all prompts begin with; no segment is empty

CUT_OFF = 0.9
"""Of max_tokens: answers that take more on the mean were mostly cut off, and how long they would be is not known."""

UNBOUNDED_ANSWER = 0.5
"""Of max_tokens, what an answer is expected to take that nothing bounds and that nobody measured yet."""


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
    total = distinct * (constant + float(lengths.mean()) + engine.frame[1])
    tree = constant + distinct * engine.frame[1]
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
    """The same column, measured in tokens; what two cells share stays in proportion to their characters."""
    ends = "\n" if column.label == 0 else ",\n"
    texts = column.rendered
    tokens = engine.count([text + ends for text in texts])
    scale = float(tokens.sum()) / max(float(column.lengths.sum()), 1.0)
    label = texts[0][: column.label] if texts else ""
    labelled = float(engine.count([label])[0]) if label else 0.0
    return replace(column, lengths=tokens, label=labelled, reach=column.reach * scale)  # type: ignore[arg-type]


def _tree(prompt: Prompt, columns: Sequence[Column], distinct: float, known: Sequence[float] | None) -> float:
    """Tokens of the prefix tree of all rows under the exact plan of their windows.

    The tree of the global order is extrapolated level by level; beginnings of unequal cells are shared as in the
    sample. Of the repeated text that is then left, the windows' own plan shares a part that falls as tables grow: it is
    extrapolated from the sample and from half of it.
    """
    sampled = len(columns[0].codes)
    mean = np.array([column.lengths[column.codes].mean() for column in columns])
    found = known or [estimate_distinct(column.codes, distinct) for column in columns]
    size = tree_size(columns, prefix_counts(columns, distinct, known))
    partial = tree_size(columns, prefix_counts(columns, float(sampled))) - _arranged(columns)
    size -= partial * distinct / sampled
    pinned = len(columns) if prompt.spec.fixed_order else len(columns) - len(prompt.cells)
    spared = _spared(columns, pinned)
    if distinct > sampled > 1:
        half = _spared([_first(column, sampled // 2) for column in columns], pinned)
        spared = min(max(spared + (spared - half) * math.log2(distinct / sampled), 0.0), spared)
    return size - spared * max(size - float((mean * found).sum()), 0.0)


def _spared(columns: Sequence[Column], pinned: int) -> float:
    """Of the repeated text that the order of `columns` does not share, the part that the exact plan does."""
    arranged = _arranged(columns)
    values = (np.unique(column.codes) for column in columns)
    least = sum(float(c.lengths[c.codes].mean()) * len(v) for c, v in zip(columns, values, strict=True))
    planned = _text(columns) - plan_window(columns, range(len(columns)), pinned).hits
    return min(max(arranged - planned, 0.0) / (arranged - least), 1.0) if arranged > least else 0.0


def _first(column: Column, rows: int) -> Column:
    return replace(column, codes=column.codes[:rows])


def _arranged(columns: Sequence[Column]) -> float:
    """Text of the sample's prefix tree in the order of `columns`."""
    order = np.broadcast_to(np.arange(len(columns), dtype=np.uint8), (len(columns[0].codes), len(columns)))
    return _text(columns) - arrange(columns, order, Blocks())[0]


def _text(columns: Sequence[Column]) -> float:
    return float(sum(column.lengths[column.codes].sum() for column in columns))


def _answer_tokens(prompt: Prompt, engine: EngineProfile) -> float:
    """Mean tokens of an answer."""
    most = float(prompt.call["max_tokens"])
    if engine.output is not None:
        return min(engine.output, most)
    constraint = prompt.call["constraint"]
    if constraint["kind"] == "choices":
        return min(float(engine.count(list(constraint["value"])).mean()), most)
    others = engine.lengths.get(constraint["kind"], ())
    likely = [most if mean > CUT_OFF * bound else min(mean, most) for mean, bound in others]
    return median(likely) if likely else most * UNBOUNDED_ANSWER


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
