"""The error that planning raises: a row of the table of error conditions, filled in."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files


@cache
def _conditions() -> Mapping[str, Mapping[str, str]]:
    return json.loads(files("spark_llm").joinpath("error-conditions.json").read_text())


class InvalidCall(ValueError):
    """A call that cannot be planned as it is written.

    Parameters
    ----------
    condition : str
        A name of `error-conditions.json`.
    **parameters : str
        What its message and remedy leave open; never data of a row.

    Examples
    --------
    >>> print(InvalidCall("LLM_BAD_CONF", key="spark.llm.maxTokens", value="x", detail="no integer"))
    [LLM_BAD_CONF] spark.llm.maxTokens = 'x' is not usable: no integer.
    <BLANKLINE>
    See docs/configuration.md.
    """

    def __init__(self, condition: str, **parameters: object) -> None:
        row = _conditions()[condition]
        self.condition = condition
        self.parameters = {name: str(value) for name, value in parameters.items()}
        self.message = self._fill(row["message"])
        self.remedy = self._fill(row["remedy"])
        super().__init__(f"[{condition}] {self.message}\n\n{self.remedy}")

    def _fill(self, template: str) -> str:
        return re.sub(r"<(\w+)>", lambda m: self.parameters.get(m[1], m[0]), template)
