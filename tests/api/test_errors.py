"""Bad input through SQL: one clear error each, or one NULL row; what the planner refuses is tested with the planner."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

import spark_llm

pytestmark = pytest.mark.spark
MODEL = Path(spark_llm.__file__).parent / "default_model"


@pytest.fixture
def on_worker(spark, tmp_path):
    """The session's calls go to a worker of its own."""
    settings = {"placement": "worker", "worker.dir": str(tmp_path / "worker"), "worker.idleSeconds": "1"}
    for name, value in settings.items():
        spark.conf.set(f"spark.llm.{name}", value)
    return spark


def message_of(failure) -> str:
    return str(failure.value)


def test_a_missing_model_directory_is_named(on_worker):
    on_worker.conf.set("spark.llm.engine", "native")
    on_worker.conf.set("spark.llm.engine.args", "{}")
    with pytest.raises(Exception, match="LLM_UNKNOWN_MODEL") as failure:
        on_worker.sql("SELECT llm('Q', id, model => '/no/such/model') FROM range(3)").collect()
    assert "/no/such/model" in message_of(failure)
    assert "Set spark.llm.model" in message_of(failure)


def test_an_unsupported_architecture_is_refused_by_name(on_worker, tmp_path):
    shutil.copytree(MODEL, tmp_path / "odd")
    (tmp_path / "odd" / "config.json").write_text(
        json.dumps({"architectures": ["OddForCausalLM"], "model_type": "odd"})
    )
    on_worker.conf.set("spark.llm.engine", "native")
    on_worker.conf.set("spark.llm.engine.args", "{}")
    with pytest.raises(Exception, match="LLM_UNSUPPORTED_MODEL") as failure:
        on_worker.sql(f"SELECT llm('Q', id, model => '{tmp_path / 'odd'}') FROM range(3)").collect()
    assert "OddForCausalLM" in message_of(failure)
    assert "LlamaForCausalLM" in message_of(failure)


def test_a_worker_that_cannot_start(on_worker, tmp_path):
    (tmp_path / "open").mkdir(mode=0o777)
    (tmp_path / "open").chmod(0o777)
    on_worker.conf.set("spark.llm.worker.dir", str(tmp_path / "open"))
    with pytest.raises(Exception, match="LLM_WORKER_START") as failure:
        on_worker.sql("SELECT llm('Q', id) FROM range(3)").collect()
    assert "spark.llm.worker.dir" in message_of(failure)


def test_a_prompt_longer_than_the_context_costs_its_row_only(on_worker):
    on_worker.conf.set("spark.llm.engine", "native")
    on_worker.conf.set("spark.llm.engine.args", json.dumps({"max_length": 128, "kv_tokens": 4096}))
    call = "llm('Q', repeat('word ', CAST(pow(10, id) AS INT)), max_tokens => 2, on_error => 'struct')"
    text = f"SELECT id, {call} a FROM range(4)"
    rows = {row.id: row.a for row in on_worker.sql(text).collect()}
    assert rows[0].error is None
    assert rows[3].value is None
    assert rows[3].error.condition == "LLM_PROMPT_TOO_LONG"
    assert re.search(r"\d+ tokens exceeds .* 128", rows[3].error.message)


def test_bad_rows_are_null_and_many_fail_the_query(on_worker, calls):
    """The rate counts the calls of all tasks on the host, 50 in each of four here."""
    spark = on_worker
    spark.conf.set("spark.llm.engine.args", json.dumps({"calls_dir": str(calls.folder), "fail_marker": "bad"}))
    text = "SELECT llm('Q', IF(id % 10 = 0, 'bad ', 'ok ') || id) a FROM range(200)"
    with pytest.raises(Exception, match="LLM_ERROR_RATE") as failure:
        spark.sql(text).collect()
    assert "spark.llm.maxErrorRate" in message_of(failure)
    spark.conf.set("spark.llm.maxErrorRate", "0.2")
    assert sum(row.a is None for row in spark.sql(text).collect()) == 20


def test_invalid_utf8_costs_its_row_only(spark):
    text = "SELECT llm('Q', CAST(b AS STRING), on_error => 'struct') a FROM VALUES (X'6f6b'), (X'ff') AS v(b)"
    good, bad = sorted((row.a for row in spark.sql(text).collect()), key=lambda a: a.error is not None)
    assert good.error is None
    assert bad.error.condition == "LLM_INVALID_UTF8"


def test_an_unknown_setting_is_refused(spark):
    spark.conf.set("spark.llm.modle", "x")
    try:
        with pytest.raises(Exception, match=r"did you mean spark\.llm\.model"):
            spark.sql("SELECT llm('Q', id) FROM range(2)").collect()
    finally:
        spark.conf.unset("spark.llm.modle")
