"""The error that planning raises."""

from __future__ import annotations

from spark_llm.errors import LlmError


class InvalidCall(LlmError, ValueError):
    """A call that cannot be planned as it is written.

    Examples
    --------
    >>> print(InvalidCall("LLM_BAD_CONF", key="spark.llm.maxTokens", value="x", detail="no integer"))
    [LLM_BAD_CONF] spark.llm.maxTokens = 'x' is not usable: no integer.
    <BLANKLINE>
    See docs/configuration.md.
    """
