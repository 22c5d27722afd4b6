"""What a planned LLM call is: the dataclasses that planner, executor and the ways into SQL share.

A `CallSpec` is made once per call site (by the Catalyst rules or by the sqlglot rewrite), travels as JSON inside the
bound Python function, and is everything an executor task knows about the call.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Literal

FieldKind = Literal["text", "json", "prompt"]
"""How an argument column is read: `text` = a SQL string, raw; `json` = any other type, already rendered to JSON text;
`prompt` = the row's own prompt text."""


@cache
def function_table() -> Mapping[str, Any]:
    """The SQL functions and their options, the one table that the JVM, Python and the documentation read."""
    return json.loads(files("spark_llm.optimizer").joinpath("functions.json").read_text())


@dataclass(frozen=True, slots=True)
class Field:
    """One argument of a call: the name the model sees and how its column is read."""

    name: str
    kind: FieldKind = "text"


@dataclass(frozen=True, slots=True)
class CallPlan:
    """What the planner decided for one call.

    `order` lists indices into `CallSpec.fields`; `reasons` says in words why, and what was not applied;
    `estimate` holds `rows`, `distinct`, `prompt_tokens`, `cached_tokens` where they were sampled.
    """

    order: tuple[int, ...]
    reasons: tuple[str, ...] = ()
    estimate: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CallSpec:
    """One call site of an LLM function.

    Parameters
    ----------
    function : str
        `llm`, `llm_filter`, `llm_classify` or `llm_extract`.
    instruction : str
        The constant part of the prompt; '' if there is none.
    fields : sequence of Field
        The argument columns, in the order in which the bound function receives them.
    options : mapping
        The named options given by the user, by the names in `functions.json`; for `llm_classify` also `choices`
        (the labels), for `llm_extract` also `returns` (the DDL).
    result_type : object
        Spark's JSON form of the value's type, e.g. `"string"` or `{"type": "struct", "fields": [...]}`.
    conf : mapping
        The session's `spark.llm.*` settings, as strings.
    plan : CallPlan, optional
        Absent where no planner ran: the order as written is then used.
    log : mapping, optional
        How the plan reads the result log: the fields of `result_log.task.LogPlan`. Absent where it does not.
    limit : int, optional
        So many rows are enough: the executor asks in growing windows. With `terms` it asks nothing more once so many
        rows of its task have passed.
    terms : sequence of Term
        The call is the conjunction of these and has no question of its own; its value is BOOLEAN.
    """

    function: str
    instruction: str
    fields: tuple[Field, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    result_type: Any = "string"
    conf: Mapping[str, str] = field(default_factory=dict)
    plan: CallPlan | None = None
    log: Mapping[str, Any] | None = None
    limit: int | None = None
    terms: tuple[Term, ...] = ()

    @property
    def fixed_order(self) -> bool:
        return self.options.get("field_order") == "fixed"

    @property
    def on_error(self) -> str:
        return self.options.get("on_error", "null")

    @property
    def deterministic(self) -> bool:
        return self.options.get("temperature", 0) == 0 or "seed" in self.options

    @property
    def call_id(self) -> str:
        """Identity of the question asked: equal for call sites that ask the same, whatever their plan or conf."""
        fields = [asdict(f) for f in self.fields]
        asked = [self.function, self.instruction, fields, dict(self.options), self.result_type]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> CallSpec:
        raw = json.loads(text)
        raw["fields"] = tuple(Field(**f) for f in raw["fields"])
        if (plan := raw.get("plan")) is not None:
            raw["plan"] = CallPlan(tuple(plan["order"]), tuple(plan.get("reasons", ())), plan.get("estimate", {}))
        raw["terms"] = tuple(Term.from_dict(term) for term in raw.get("terms", ()))
        return cls(**raw)


Test = tuple[str, tuple[Any, ...]]
"""`in`, `not in`, `not null` or a comparison, and the constants that the answer is compared with."""


@dataclass(frozen=True, slots=True)
class Term:
    """One term of a conjunction: the answer of `call` passes all `tests`; NULL passes none.

    Parameters
    ----------
    call : CallSpec
    columns : sequence of int
        Where its fields are among those of the conjunction.
    tests : sequence of Test
        E.g. `(("in", ("Yes",)),)` of `llm('Good?', review) = 'Yes'`.
    """

    call: CallSpec
    columns: tuple[int, ...]
    tests: tuple[Test, ...] = (("in", (True,)),)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Term:
        call = CallSpec.from_json(json.dumps(raw["call"]))
        return cls(call, tuple(raw["columns"]), tuple((test, tuple(values)) for test, values in raw["tests"]))
