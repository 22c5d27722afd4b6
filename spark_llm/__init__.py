"""spark-llm: LLM calls as SQL functions of Apache Spark."""
