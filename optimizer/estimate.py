"""What a call will cost, from a sample of its arguments, before anything is asked."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from spark_llm.optimizer.columns import Column, Window
from spark_llm.optimizer.prompts import Prompt
from spark_llm.optimizer.statistics import estimate_distinct

CHARACTERS_PER_TOKEN = 4.0
"""Of English prose under the usual vocabularies; used where no tokenizer is at hand."""


def estimate_call(prompt: Prompt, window: Window, rows: float) -> dict[str, float]:
    """Expected `rows`, `distinct` tuples, `prompt_tokens`, and `cached_tokens` with an unbounded prefix cache.

    Parameters
    ----------
    prompt : Prompt
        The call with its plan.
    window : Window
        Its sample, encoded under that plan, at least one row.
    rows : float
        Rows of the whole input.
    """
    columns = window.cells if window.head is None else (window.head, *window.cells)
    prefixes = _distinct_prefixes(columns, rows)
    lengths = np.array([column.lengths[column.codes].mean() for column in columns])
    distinct = prefixes[-1] if len(prefixes) else 1.0
    constant = len(prompt.call["instruction"])
    total = distinct * (constant + lengths.sum())
    computed = constant + (prefixes * lengths).sum()
    tokens = {"prompt_tokens": total, "cached_tokens": max(total - computed, 0.0)}
    return {"rows": rows, "distinct": round(distinct)} | {k: round(v / CHARACTERS_PER_TOKEN) for k, v in tokens.items()}


def _distinct_prefixes(columns: tuple[Column, ...], rows: float) -> npt.NDArray[np.float64]:
    """Expected distinct tuples of the first 1, 2, … columns: the nodes of the prefix tree, level by level."""
    prefix, found = np.zeros(1, np.int64), []
    for column in columns:
        prefix = np.unique(prefix * len(column.lengths) + column.codes, return_inverse=True)[1]
        found.append(estimate_distinct(prefix, rows))
    return np.maximum.accumulate(np.array(found))
