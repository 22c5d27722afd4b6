"""Structured Streaming: a plain projection, and foreachBatch with the full plan."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.spark


@pytest.fixture
def source(spark, tmp_path):
    folder = str(tmp_path / "in")
    spark.sql("SELECT id, 'text ' || id % 3 AS t FROM range(12)").repartition(2).write.parquet(folder)
    return spark.readStream.schema("id BIGINT, t STRING").option("maxFilesPerTrigger", 1).parquet(folder)


def test_plain_projection(spark, source, calls, tmp_path):
    query = (
        source.selectExpr("id", "llm('Q', t) a")
        .writeStream.format("memory")
        .queryName("answers")
        .option("checkpointLocation", str(tmp_path / "checkpoint"))
        .trigger(availableNow=True)
        .start()
    )
    query.awaitTermination(120)
    rows = spark.sql("SELECT id % 3 k, a FROM answers").collect()
    assert len(rows) == 12
    assert len({(row.k, row.a) for row in rows}) == 3
    assert len(set(calls.lines())) == 3


def test_foreach_batch(spark, source, calls, tmp_path):
    def store(batch, number):
        batch.selectExpr("id", "llm('Q', t) a").write.mode("append").parquet(str(tmp_path / "out"))

    query = (
        source.writeStream.foreachBatch(store)
        .option("checkpointLocation", str(tmp_path / "checkpoint"))
        .trigger(availableNow=True)
        .start()
    )
    query.awaitTermination(120)
    rows = spark.read.parquet(str(tmp_path / "out")).collect()
    assert sorted(row.id for row in rows) == list(range(12))
    assert len({row.a for row in rows}) == 3
    assert calls.count <= 6


@pytest.mark.parametrize("way", ["projection", "foreachBatch"])
def test_the_result_log_is_written_and_read(spark, source, calls, tmp_path, way):
    """A stream from its beginning again, as after a lost checkpoint: tasks look up what they wrote the first time."""
    spark.conf.set("spark.llm.resultLog.path", str(tmp_path / "log"))

    def store(batch, number):
        batch.selectExpr("id", "llm('Q', t) a").write.mode("append").format("noop").save()

    def run(name: str) -> None:
        plan = source.writeStream.foreachBatch(store)
        if way == "projection":
            plan = source.selectExpr("id", "llm('Q', t) a").writeStream.format("noop")
        plan = plan.option("checkpointLocation", str(tmp_path / name)).trigger(availableNow=True)
        plan.start().awaitTermination(120)

    run("first")
    asked = calls.count
    assert asked >= len(set(calls.lines())) == 3
    run("again")
    assert calls.count == asked


def test_an_unsupported_place_is_an_error(spark, source, tmp_path):
    source.createOrReplaceTempView("arriving")
    spark.sql("SELECT id, 'x' || id AS u FROM range(3)").createOrReplaceTempView("fixed")
    joined = (
        spark.sql("SELECT s.id FROM arriving s LEFT JOIN fixed f ON s.id = f.id AND llm_filter('Same?', s.t, f.u)")
        .writeStream.format("noop")
        .option("checkpointLocation", str(tmp_path / "checkpoint"))
    )
    with pytest.raises(Exception, match="LLM_STREAMING_UNSUPPORTED") as failure:
        joined.trigger(availableNow=True).start().awaitTermination(120)
    assert "foreachBatch" in str(failure.value)
