"""The table of 100 rows that the rules are tested on."""

from __future__ import annotations

import pytest

from tests.conftest import Calls, stub_conf

VIEW = "CREATE TEMP VIEW v AS SELECT id, id % 10 AS g, concat('t', id) AS t FROM range(0, 100, 1, 2)"


class Asking:
    """A session, and the calls its queries made."""

    def __init__(self, spark, calls: Calls) -> None:
        self.spark, self.calls = spark, calls
        spark.sql(VIEW)
        spark.conf.set("spark.llm.partitions", "2")
        spark.conf.set("spark.sql.shuffle.partitions", "2")
        spark.conf.set("spark.sql.codegen.wholeStage", "false")  # compiling costs more than a hundred rows
        spark.conf.set("spark.llm.planner.sampleRows", "0")

    def rows(self, query: str, **conf: str) -> tuple[list, int]:
        """Rows of `query`, and how often the model was asked."""
        self.calls.reset()
        for key, value in conf.items():
            self.spark.conf.set(f"spark.llm.{key.replace('_', '.')}", value)
        try:
            return self.spark.sql(query).collect(), self.calls.count
        finally:
            for key in conf:
                self.spark.conf.unset(f"spark.llm.{key.replace('_', '.')}")


@pytest.fixture(scope="module")
def asking(spark_root, tmp_path_factory) -> Asking:
    calls = Calls(tmp_path_factory.mktemp("calls"))
    session = spark_root.newSession()
    for key, value in stub_conf(calls.folder).items():
        session.conf.set(key, value)
    return Asking(session, calls)
