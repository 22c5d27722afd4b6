"""Errors that users see: every one is a row of `error-conditions.json`, filled in and followed by its remedy."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files


@cache
def error_conditions() -> Mapping[str, Mapping[str, str]]:
    """The table of conditions: `{condition: {message, remedy}}`, shared with the JVM."""
    return json.loads(files("spark_llm").joinpath("error-conditions.json").read_text())


def _fill(template: str, parameters: Mapping[str, object]) -> str:
    return re.sub(r"<(\w+)>", lambda m: str(parameters.get(m[1], m[0])), template)


def render_error(condition: str, parameters: Mapping[str, object]) -> str:
    """`[CONDITION] message`, an empty line, and the remedy."""
    row = error_conditions()[condition]
    return f"[{condition}] {_fill(row['message'], parameters)}\n\n{_fill(row['remedy'], parameters)}"


class LlmError(Exception):
    """A failure with a condition of the table.

    Examples
    --------
    >>> print(LlmError("LLM_JAVA", found="none"))
    [LLM_JAVA] Java 17 or newer is needed, found none.
    <BLANKLINE>
    Install a JDK 17 or 21, or set JAVA_HOME.
    """

    def __init__(self, condition: str, **parameters: object) -> None:
        super().__init__(render_error(condition, parameters))
        self.condition = condition
        self.parameters = parameters
