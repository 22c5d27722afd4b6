"""What a query may take: rows and time. Limits of one row are checked where its prompt is made."""

from __future__ import annotations

from spark_llm.serving.core import EngineFailure, Terms

from spark_llm.errors import LlmError


def check_rows(terms: Terms, asked: int) -> None:
    """Raise EngineFailure once the query asks more rows than it may."""
    if terms.max_rows and asked > terms.max_rows:
        raise _exceeded("rows", terms.max_rows, what="the query asked the model for another row")


def check_deadline(terms: Terms, seconds: float) -> None:
    """Raise EngineFailure once the query has taken longer than it may."""
    if terms.deadline_seconds and seconds > terms.deadline_seconds:
        what = f"the query has run for {seconds:.0f} seconds"
        raise _exceeded("seconds", terms.deadline_seconds, what)


def _exceeded(limit: str, value: float, what: str) -> EngineFailure:
    error = LlmError("LLM_LIMIT_EXCEEDED", what=what, key=f"spark.llm.limit.{limit}", limit=f"{value:g}")
    return EngineFailure(error.condition, error.message, error.remedy)
