"""What all tests share: one Spark context per run, sessions on the stub engine, and counts of asked calls."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("default", deadline=None, max_examples=50)
settings.load_profile("default")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

DATA = Path(__file__).parent.parent.parent / "shared" / "data"


class Calls:
    """The calls that stub engines were asked, over all processes, since the last `reset`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def lines(self) -> list[str]:
        return [line for file in self.folder.glob("*.calls") for line in file.read_text().split()]

    @property
    def count(self) -> int:
        return len(self.lines())

    def reset(self) -> None:
        for file in self.folder.glob("*.calls"):
            file.write_text("")


def stub_conf(folder: Path, **args) -> dict[str, str]:
    """Settings of a session whose calls the stub engine answers inside Spark's Python workers."""
    engine_args = {"calls_dir": str(folder), **args}
    return {
        "spark.llm.engine": "stub",
        "spark.llm.placement": "inprocess",
        "spark.llm.engine.args": json.dumps(engine_args),
    }


@pytest.fixture(scope="session")
def spark_root(tmp_path_factory):
    """The one classic session with the extension; take `spark` in tests."""
    from pyspark.sql import SparkSession

    import spark_llm

    warehouse = tmp_path_factory.mktemp("warehouse")
    builder = SparkSession.builder.master("local[2]").appName("tests")
    quiet = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.shuffle.partitions": "4",
        "spark.sql.warehouse.dir": str(warehouse),
        "spark.log.level": "ERROR",
        "spark.driver.memory": "2g",
        "spark.sql.session.timeZone": "UTC",
        "spark.llm.report.enabled": "false",
        "spark.python.worker.reuse": "true",
    }
    for key, value in quiet.items():
        builder = builder.config(key, value)
    session = spark_llm.configure(builder).getOrCreate()
    yield session
    session.stop()


@pytest.fixture
def calls(tmp_path) -> Calls:
    folder = tmp_path / "calls"
    folder.mkdir()
    return Calls(folder)


@pytest.fixture
def spark(spark_root, calls) -> Iterator:
    """A fresh session on the stub engine, whose asked calls `calls` counts."""
    session = spark_root.newSession()
    for key, value in stub_conf(calls.folder).items():
        session.conf.set(key, value)
    yield session
    session.catalog.clearCache()
