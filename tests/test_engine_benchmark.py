"""What `benchmarks/engine.py` prints of a pair, with the other engine and without it."""

import sys
from pathlib import Path

import pytest

NAMED = {
    "native_rows_per_s", "vllm_rows_per_s", "ratio", "native_steps", "vllm_steps", "prompt_tokens",
    "computed_prefill_tokens", "distinct_prefix_tokens", "mfu",
}  # fmt: skip
OURS = {
    "seconds": 2.0, "cpu_seconds": 4.0, "steps": 8, "errors": 0, "prompt_tokens": 900, "cached_tokens": 700,
    "output_tokens": 10, "canonical_tokens": 900, "prefill_tokens": 200, "distinct_prefix_tokens": 200,
    "answers": ['{"a": 1}', "b"],
}  # fmt: skip
THEIRS = OURS | {"seconds": 4.0, "steps": 74, "answers": ['{"a":1}', "c"]}


@pytest.fixture
def engine(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import engine

    yield engine
    for name in ("engine", "checkpoint", "emit", "tables"):
        del sys.modules[name]


def test_a_line_has_every_figure_with_the_other_engine_and_without(engine):
    rates = {"ideal": 5e-3, "linears": 5e-3}
    alone, beside = (engine.line(OURS, theirs, 100, rates, False) for theirs in (None, THEIRS))
    assert alone.keys() >= NAMED
    assert [alone[name] for name in ("vllm_rows_per_s", "ratio", "vllm_steps")] == [None] * 3
    assert beside.keys() >= NAMED
    assert {name: beside[name] for name in ("native_rows_per_s", "vllm_rows_per_s", "ratio", "vllm_steps", "mfu")} == {
        "native_rows_per_s": 50.0, "vllm_rows_per_s": 25.0, "ratio": 2.0, "vllm_steps": 74, "mfu": 0.5,
    }  # fmt: skip
    assert beside["equal_answers"] == 0.5
