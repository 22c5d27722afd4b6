# Databricks notebook source
# ruff: noqa: E402, F821
# MAGIC %md
# MAGIC # LLM calls in SQL
# MAGIC On a classic cluster, attach the package's JAR (`spark-llm jar` prints where it is) and install the wheel.
# MAGIC Paths below are relative to the root of the repository.

# COMMAND ----------

reviews = spark.read.parquet("sql_examples/data/reviews.parquet")
reviews.where("review_id <= 60").createOrReplaceTempView("reviews")

# COMMAND ----------

# MAGIC %md
# MAGIC Each distinct review is asked once; the answer is one of the labels.

# COMMAND ----------

# MAGIC %sql
# MAGIC SELECT llm_classify(review, array('positive', 'negative', 'mixed', 'neutral')) AS sentiment, count(*) AS reviews
# MAGIC FROM reviews
# MAGIC GROUP BY 1
# MAGIC ORDER BY 2 DESC

# COMMAND ----------

# MAGIC %md
# MAGIC The same functions exist for DataFrames.

# COMMAND ----------

from spark_llm import functions as F

praise = reviews.where("review_id <= 60").where(F.llm_filter("Does the reviewer recommend it?", "review"))
praise.select("product", F.llm("What is praised?", "review", max_tokens=16).alias("praised")).show(10, truncate=False)
