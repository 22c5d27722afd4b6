"""What runs inside Spark's Python workers: windows of rows, their questions, and the answers in row order."""
