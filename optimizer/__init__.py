"""The planner: prompts, statistics, field and row order, estimates and the sqlglot rewrite. No Spark, no torch."""
