"""What a call will cost, from a sample of its arguments, before anything is asked."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt
from spark_llm.optimizer.cache_model import simulate_cache
from spark_llm.optimizer.cells import cells
from spark_llm.optimizer.columns import Column, Window
from spark_llm.optimizer.core import CallSpec
from spark_llm.optimizer.prompts import Prompt
from spark_llm.optimizer.statistics import estimate_distinct

CHARACTERS_PER_TOKEN = 4.0
"""Of English prose under the usual vocabularies; used where no tokenizer is at hand."""

_BLOCK = {"vllm": round(16 * CHARACTERS_PER_TOKEN)}
"""Characters of an engine's block, where it caches whole blocks of more than a token."""


def estimate_call(prompt: Prompt, window: Window, rows: float) -> dict[str, float]:
    """Expected `rows`, `distinct` tuples, `prompt_tokens`, and `cached_tokens` of an engine that is asked in order.

    The cache counts as unbounded, unless `kv_tokens` of the engine's settings says what it holds; vLLM's serves whole
    blocks only.

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
    cached = max(total - computed, 0.0) * _kept(prompt, window)
    tokens = {"prompt_tokens": total, "cached_tokens": cached}
    return {"rows": rows, "distinct": round(distinct)} | {k: round(v / CHARACTERS_PER_TOKEN) for k, v in tokens.items()}


def _distinct_prefixes(columns: tuple[Column, ...], rows: float) -> npt.NDArray[np.float64]:
    """Expected distinct tuples of the first 1, 2, … columns: the nodes of the prefix tree, level by level."""
    prefix, found = np.zeros(1, np.int64), []
    for column in columns:
        prefix = np.unique(prefix * len(column.lengths) + column.codes, return_inverse=True)[1]
        found.append(estimate_distinct(prefix, rows))
    return np.maximum.accumulate(np.array(found))


def _kept(prompt: Prompt, window: Window) -> float:
    """Of what all equal beginnings of the sorted sample are worth, the share that the engine's cache serves."""
    capacity, block = _cache(prompt.spec)
    if capacity is None and block == 1:
        return 1.0
    columns = window.cells if window.head is None else (window.head, *window.cells)
    rows = np.lexsort([column.codes for column in reversed(columns)]) if columns else np.arange(window.rows)
    prompts = [(prompt.call["instruction"], *row) for row in cells(window, rows)]
    equal = simulate_cache(prompts, len).cached
    return simulate_cache(prompts, len, capacity, block).cached / equal if equal else 1.0


def _cache(spec: CallSpec) -> tuple[int | None, int]:
    """What the engine's cache holds, None if that is not set, and its block, both in characters."""
    block = _BLOCK.get(spec.conf.get("spark.llm.engine", ""), 1)
    try:
        settings = json.loads(spec.conf.get("spark.llm.engine.args", "{}"))
    except ValueError:
        settings = {}  # the engine refuses them, naming the setting; a plan is made all the same
    tokens = settings.get("kv_tokens") if isinstance(settings, dict) else None
    return round(tokens * CHARACTERS_PER_TOKEN) if isinstance(tokens, int) and tokens > 0 else None, block
