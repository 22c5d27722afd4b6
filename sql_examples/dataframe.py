"""The same functions for DataFrames: `python sql_examples/dataframe.py` in the root of the repository."""

from __future__ import annotations

from pyspark.sql import DataFrame, SparkSession

import spark_llm
from spark_llm import functions as F

TEAMS = ["billing", "shipping", "login", "bug", "refund", "cancellation"]


def angry_tickets(spark: SparkSession) -> DataFrame:
    """Messages of angry customers, with the team that should answer and whether it is urgent."""
    tickets = spark.read.parquet("sql_examples/data/tickets.parquet").where("ticket_id <= 100")
    return (
        tickets.where(F.llm_filter("Is the customer angry?", "message"))
        .withColumn("team", F.llm_classify("message", labels=TEAMS))
        .withColumn("found", F.llm_extract("message", schema="urgent BOOLEAN"))
        .select("ticket_id", "team", "found.urgent", "message")
        .orderBy("ticket_id")
    )


def summaries(spark: SparkSession) -> DataFrame:
    """One sentence per review; `model` names any model directory, `default` is the embedded one."""
    reviews = spark.read.parquet("sql_examples/data/reviews.parquet").where("review_id <= 10")
    summary = F.llm("Summarize the review in one sentence.", "review", model="default", max_tokens=32)
    return reviews.select("review_id", summary.alias("summary"), "review").orderBy("review_id")


if __name__ == "__main__":
    session = spark_llm.configure(SparkSession.builder.master("local[2]").appName("tickets")).getOrCreate()
    angry_tickets(session).show(10, truncate=False)
    summaries(session).show(truncate=False)
    session.stop()
