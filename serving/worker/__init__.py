"""The host's engine worker: one front for all tasks, queries and applications, one process per model."""
