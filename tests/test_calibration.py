"""What queries measured, and what the planner process makes of it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from spark_llm.optimizer.core import CallPlan, CallSpec, Field
from spark_llm.optimizer.plan import plan_call
from spark_llm.serving.footprint import MAX_DEFAULT_KV_TOKENS

from spark_llm.calibration import FILE, KEPT_CALLS, Calibration
from spark_llm.planning import profile, record

WORK = {"calls": 10, "prompt": 60_000, "cached": 20_000, "output": 50, "seconds": 5.04}


def test_the_median_of_the_latest_queries_is_the_speed(tmp_path):
    kept = Calibration(tmp_path)
    assert kept.of("m").speed() is None
    for seconds in (5.04, 5.04, 90.0):
        kept.record("m", "c", WORK | {"seconds": seconds})
    speed = kept.of("m").speed()
    assert speed.seconds(40_000, 50) == pytest.approx(5.04)
    assert kept.of("other").speed() is None
    assert kept.of("m").output_tokens("c") == 5
    assert kept.of("m").output_tokens("d") is None


def test_small_queries_measure_no_engine(tmp_path):
    Calibration(tmp_path).record("m", None, WORK | {"prompt": 20_100, "output": 0})
    assert Calibration(tmp_path).of("m").speed() is None


def test_old_calls_are_forgotten(tmp_path):
    kept = Calibration(tmp_path)
    for number in range(KEPT_CALLS + 1):
        kept.record("m", str(number), WORK)
    assert kept.of("m").output_tokens("0") is None
    assert kept.of("m").output_tokens("1") == 5


@pytest.mark.parametrize("content", ["", "[]", "{"])
def test_an_unusable_file_is_as_none(tmp_path, content):
    (tmp_path / FILE).write_text(content)
    kept = Calibration(tmp_path)
    assert kept.of("m").speed() is None
    kept.record("m", None, WORK)
    assert kept.of("m").speed() is not None


def spec(tmp_path, **conf) -> CallSpec:
    folder = tmp_path / "worker"
    settings = {"spark.llm.worker.dir": str(folder)} | {f"spark.llm.{k}": v for k, v in conf.items()}
    plan = CallPlan((0,), (), {"prompt_tokens": 1000.0, "distinct": 10.0})
    return CallSpec("llm", "Sum up", (Field("text"),), conf=settings, plan=plan)


def test_the_models_own_tokenizer_counts(tmp_path):
    found = profile(spec(tmp_path))
    assert found.capacity == MAX_DEFAULT_KV_TOKENS
    assert found.count(["\n", "the film is good\n"]).tolist() != [0.25, 4.25]
    assert found.frame[0] > 0
    assert profile(spec(tmp_path, chat="false")).frame == (0.0, 0.0)


def test_without_a_tokenizer_prompts_measure_characters(tmp_path):
    call = spec(tmp_path, engine="vllm", model="somebody/some-model")
    assert profile(call).count(["a" * 8]).tolist() == [2.0]
    record({"calls": [json.loads(call.to_json())], "measured": WORK | {"prompt": 2000, "calls": 10}})
    assert profile(call).count(["a" * 8]).tolist() == [4.0]
    assert profile(call).output == 5


def test_the_planner_process_loads_neither_torch_nor_pyspark():
    code = "import sys, spark_llm.planning; print(*{'torch', 'pyspark', 'sqlglot'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60)
    assert done.stdout.strip() == b""


def test_answers_to_other_calls_of_the_kind_say_how_long_one_will_be(tmp_path):
    """Those that `max_tokens` cut off say only that it will be used up."""
    asked = spec(tmp_path)
    (tmp_path / "worker").mkdir(mode=0o700)

    def expected(most: int) -> float:
        call = replace(asked, instruction="Another", options={"max_tokens": most}, plan=None)
        return plan_call(call, [["a", "b"]], engine=profile(call)).estimate["output_tokens"] / 2

    def measure(most: int, mean: int) -> None:
        call = replace(asked, options={"max_tokens": most})
        measured = WORK | {"calls": 10, "output": 10 * mean}
        record({"calls": [json.loads(call.to_json())], "measured": measured})

    assert expected(100) == 50
    measure(16, 16)
    assert (expected(100), expected(16)) == (100, 16)
    measure(64, 20)
    measure(64, 24)
    assert (expected(100), expected(16)) == (24, 16)
