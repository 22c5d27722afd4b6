"""spark-llm: LLM calls as SQL functions of Apache Spark.

Nothing heavy is imported here: `spark_llm.optimizer` must import without pyspark and torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spark_llm import functions
    from spark_llm.errors import LlmError
    from spark_llm.explanation import explain
    from spark_llm.plain import register
    from spark_llm.query import sql
    from spark_llm.sensitivity import order_sensitivity
    from spark_llm.session import configure, jar_path, settings

__version__ = "0.1.0"
__all__ = [
    "LlmError",
    "configure",
    "explain",
    "functions",
    "jar_path",
    "order_sensitivity",
    "register",
    "settings",
    "sql",
]

_HOMES = {
    "LlmError": "errors",
    "configure": "session",
    "explain": "explanation",
    "jar_path": "session",
    "order_sensitivity": "sensitivity",
    "register": "plain",
    "settings": "session",
    "sql": "query",
}


def __getattr__(name: str) -> Any:
    if name == "functions":
        return import_module("spark_llm.functions")
    if name not in _HOMES:
        msg = f"module 'spark_llm' has no attribute {name!r}; it has {', '.join(__all__)}"
        raise AttributeError(msg)
    return getattr(import_module(f"spark_llm.{_HOMES[name]}"), name)
