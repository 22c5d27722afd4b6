"""What `*` in a call stands for without the extension is what Spark's `SELECT *` gives, in its order."""

from __future__ import annotations

import pyspark
import pytest
import sqlglot
from spark_llm.optimizer.catalog import Table
from spark_llm.optimizer.dialect import Spark4
from spark_llm.optimizer.expand_stars import expand_stars
from sqlglot import exp

pytestmark = pytest.mark.spark

COLUMNS = {
    "a": "x INT, k INT, y INT",
    "b": "z INT, K INT, w INT",
    "c": "w INT, v INT, k INT",
    "d": "z INT, k INT, u INT",
}
TABLES = {name: Table({c.split()[0]: "int" for c in columns.split(", ")}) for name, columns in COLUMNS.items()}
ROWS = {
    "a": "(1, 1, 1), (2, 2, 2)",
    "b": "(3, 2, 3), (4, 5, 4)",
    "c": "(3, 6, 2), (7, 8, 9)",
    "d": "(3, 2, 3), (4, 5, 4)",
}
IN_ANY_CASE = pytest.mark.skipif(
    pyspark.__version__ < "4.3", reason="before Spark 4.3 a NATURAL JOIN does not take k and K for one column"
)


@pytest.fixture(scope="module")
def tables(spark_root):
    spark = spark_root.newSession()
    for name, columns in COLUMNS.items():
        names = ", ".join(column.split()[0] for column in columns.split(", "))
        spark.sql(f"CREATE OR REPLACE TEMP VIEW {name} AS SELECT * FROM VALUES {ROWS[name]} AS t({names})")
    return spark


@pytest.mark.parametrize(
    "source",
    [
        "a JOIN b USING (k)",
        "a LEFT JOIN b USING (k)",
        "a RIGHT JOIN b USING (k)",
        "a FULL JOIN b USING (k)",
        "a FULL JOIN b USING (k) FULL JOIN c USING (k)",
        "a LEFT SEMI JOIN b USING (k)",
        "a LEFT ANTI JOIN b USING (k)",
        "a NATURAL JOIN d",
        "d NATURAL FULL JOIN c",
        pytest.param("a NATURAL JOIN b", marks=IN_ANY_CASE),
        pytest.param("b NATURAL FULL JOIN c", marks=IN_ANY_CASE),
        "a JOIN b ON a.k = b.k",
        "a LEFT SEMI JOIN b ON a.k = b.k",
        "a CROSS JOIN b",
        "a, b JOIN c USING (w)",
    ],
)
def test_stars_stand_for_the_columns_of_spark(tables, source):
    tree = sqlglot.parse_one(f"SELECT llm('p', *) FROM {source}", dialect=Spark4)
    call = expand_stars(tree, TABLES.get).find(exp.Anonymous)
    columns = ", ".join(column.sql(dialect=Spark4) for column in call.expressions[1:])
    expected = tables.sql(f"SELECT * FROM {source}")
    found = tables.sql(f"SELECT {columns} FROM {source}")
    assert [name.lower() for name in found.columns] == [name.lower() for name in expected.columns]
    assert sorted(map(tuple, found.collect()), key=repr) == sorted(map(tuple, expected.collect()), key=repr)
