"""The way in without a JAR: `llm` and its siblings as plain registered UDFs.

`llm(prompt, struct(review, title)[, options_json])` is optimized inside each partition only; the prompts are those of
the planned way under `field_order => 'fixed'`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from spark_llm.conf import PREFIX
from spark_llm.errors import LlmError
from spark_llm.executor.conjunction import ConjunctionRunner
from spark_llm.executor.render import render_column
from spark_llm.executor.runner import CallRunner
from spark_llm.optimizer.core import CallSpec, Field, Term
from spark_llm.optimizer.ddl import parse_ddl

if TYPE_CHECKING:
    from pyspark.sql import Column, SparkSession

TIME_ZONE = "spark.sql.session.timeZone"
FUNCTIONS = ("llm", "llm_filter", "llm_classify", "llm_extract")
TOGETHER = ("llm_all", "llm_first")
"""What `spark_llm.sql` makes of predicates; their first argument is written by `optimizer/ask_together.py`."""


def register(spark: SparkSession) -> None:
    """Register `llm`, `llm_filter`, `llm_classify` and `llm_extract` as plain UDFs of this session.

    The session's `spark.llm.*` settings at this moment go with them. Works on Spark Connect, where Python workers must
    have spark-llm installed.

    Examples
    --------
    >>> spark_llm.register(spark)  # doctest: +SKIP
    >>> spark.sql("SELECT llm('Is it good?', struct(review, title)) FROM reviews")  # doctest: +SKIP
    """
    conf = _session_conf(spark)
    for name in FUNCTIONS + TOGETHER:
        spark.udf.register(name, _make_udf(name, conf))


def call_plain(
    name: str,
    prompt: Sequence[Column],
    fields: Sequence[Column],
    constants: Sequence[Column],
    options: dict[str, Any],
) -> Column:
    """A DataFrame expression that calls the registered function."""
    from pyspark.sql import functions as sf

    call = sf.call_function(name, *prompt, sf.struct(*fields), *constants, sf.lit(json.dumps(options)))
    return call if name != "llm_extract" else sf.from_json(call, constants[0])


def _session_conf(spark: SparkSession) -> dict[str, str]:
    given = {row["key"]: row["value"] for row in spark.sql("SET").collect() if row["key"].startswith(PREFIX)}
    return {**given, TIME_ZONE: spark.conf.get(TIME_ZONE)}


def _make_udf(name: str, conf: dict[str, str]) -> Any:
    from pyspark.sql import functions as sf
    from pyspark.sql.types import BooleanType, StringType

    result = BooleanType() if name in ("llm_filter", *TOGETHER) else StringType()
    answers = answer_together if name in TOGETHER else answer
    if hasattr(sf, "arrow_udf"):

        def over_arrow(batches: Iterator[tuple[pa.Array, ...]]) -> Iterator[pa.Array]:
            yield from answers(name, conf, batches)

        return _placed(name, sf.arrow_udf(over_arrow, result))

    def over_pandas(batches: Iterator[tuple[pd.Series, ...]]) -> Iterator[pd.Series]:
        for values in answers(name, conf, (tuple(map(_from_pandas, batch)) for batch in batches)):
            yield values.to_pandas()

    return _placed(name, sf.pandas_udf(over_pandas, result))  # type: ignore[attr-defined, unused-ignore]


def _placed(name: str, function: Any) -> Any:
    """`llm_first` counts rows, so Spark must not move it below joins or groupings."""
    return function.asNondeterministic() if name == "llm_first" else function


def _from_pandas(column: Any) -> pa.Array:
    if hasattr(column, "columns"):
        return pa.StructArray.from_arrays([_from_pandas(column[c]) for c in column.columns], list(column.columns))
    return pa.array(column, from_pandas=True)


def answer(name: str, conf: dict[str, str], batches: Iterable[tuple[pa.Array, ...]]) -> Iterator[pa.Array]:
    """Answer batches of a plain call's arguments: prompt (llm, llm_filter), struct, labels or schema, options.

    Batches that ask the same question go to one runner, so windows and prefix order reach across them. A prompt that
    changes inside a batch travels as a column.
    """
    asked = (_question(name, conf, batch) for batch in batches if len(batch[0]))
    for _, group in groupby(asked, key=lambda question: question[0].call_id):
        spec, columns = next(group)
        for result in CallRunner(spec).run(chain([columns], (rest for _, rest in group))):
            yield _public(name, result.field("value"))


def answer_together(name: str, conf: dict[str, str], batches: Iterable[tuple[pa.Array, ...]]) -> Iterator[pa.Array]:
    """Answer batches of `llm_all(terms, struct, ...)` and `llm_first(terms, keep, struct, ...)`.

    Rows that are not to be kept become NULLs, which are not asked and do not pass.
    """
    given = (batch for batch in batches if len(batch[0]))
    if (head := next(given, None)) is None:
        return
    if not _is_constant(head[0]):
        raise LlmError("LLM_BAD_OPTION", option="terms", function=name, expected="constant", actual="a column", doc="")
    asked = json.loads(head[0][0].as_py())
    spec = _conjunction(asked, conf, head[2 if name == "llm_first" else 1 :])
    for result in ConjunctionRunner(spec).run(_kept(name, asked, conf, batch) for batch in chain([head], given)):
        yield result.field("value")


def _conjunction(asked: Mapping[str, Any], conf: Mapping[str, str], structs: Sequence[pa.Array]) -> CallSpec:
    terms: list[Term] = []
    for raw, struct in zip(asked["terms"], structs, strict=True):
        spec, _ = _term(raw, conf, struct)
        first = sum(len(term.columns) for term in terms)
        columns = tuple(range(first, first + len(spec.fields)))
        terms.append(Term(spec, columns, ((raw["test"][0], tuple(raw["test"][1])),)))
    fields = tuple(field for term in terms for field in term.call.fields)
    return CallSpec("llm_filter", "", fields, {}, "boolean", conf, limit=asked.get("limit"), terms=tuple(terms))


def _term(raw: Mapping[str, Any], conf: Mapping[str, str], struct: pa.Array) -> tuple[CallSpec, list[pa.Array]]:
    """The call of one term and its argument columns as strings."""
    name, constants = raw["function"], raw["constants"]
    instruction, constants = (constants[0], constants[1:]) if name in ("llm", "llm_filter") else ("", constants)
    rendered = [render_column(f.name, struct.field(i), name) for i, f in enumerate(struct.type)]
    options = _options(name, constants)
    spec = CallSpec(name, instruction, tuple(f for f, _ in rendered), options, _value_type(name, options), conf)
    return spec, [_as_argument(field, column) for field, column in rendered]


def _kept(name: str, asked: Mapping[str, Any], conf: Mapping[str, str], batch: Sequence[pa.Array]) -> list[pa.Array]:
    structs = batch[2:] if name == "llm_first" else batch[1:]
    terms = zip(asked["terms"], structs, strict=True)
    columns = [column for raw, struct in terms for column in _term(raw, conf, struct)[1]]
    if name == "llm_all":
        return columns
    keep = pc.fill_null(batch[1], False)
    return [pc.if_else(keep, column, pa.scalar(None, column.type)) for column in columns]


def _question(name: str, conf: Mapping[str, str], batch: Sequence[pa.Array]) -> tuple[CallSpec, list[pa.Array]]:
    """The call that a batch makes, and its argument columns as strings."""
    has_prompt = name in ("llm", "llm_filter")
    struct, *constants = batch[1:] if has_prompt else batch
    rendered = [render_column(f.name, struct.field(i), name) for i, f in enumerate(struct.type)]
    instruction = ""
    if has_prompt and _is_constant(batch[0]):
        instruction = batch[0][0].as_py() or ""
    elif has_prompt:
        rendered.insert(0, (Field("prompt", "prompt"), batch[0]))
    options = _options(name, [_constant(name, column) for column in constants])
    spec = CallSpec(name, instruction, tuple(f for f, _ in rendered), options, _value_type(name, options), conf)
    return spec, [_as_argument(field, column) for field, column in rendered]


def _as_argument(field: Field, column: pa.Array) -> pa.Array:
    """JSON values travel as the only member of an object, as `to_json` makes them."""
    return pc.binary_join_element_wise('{"v":', column, "}", "") if field.kind == "json" else column


def _is_constant(column: pa.Array) -> bool:
    return pc.count_distinct(column, mode="all").as_py() == 1


def _constant(name: str, column: pa.Array) -> Any:
    first = column[0].as_py()
    if any(value.as_py() != first for value in column):
        raise LlmError(
            "LLM_BAD_OPTION", option="options", function=name, expected="constant", actual="a column", doc=""
        )
    return first


def _options(name: str, constants: Sequence[Any]) -> dict[str, Any]:
    """The options of a plain call; labels and schema become `choices` and `returns`."""
    own = {"llm_classify": "choices", "llm_extract": "returns"}.get(name)
    named = {own: constants[0]} if own else {}
    rest = constants[1:] if own else constants
    return {**(json.loads(rest[0]) if rest and rest[0] else {}), **named}


def _value_type(name: str, options: Mapping[str, Any]) -> Any:
    if name == "llm_filter":
        return "boolean"
    return parse_ddl(options["returns"]) if "returns" in options else "string"


def _public(name: str, values: pa.Array) -> pa.Array:
    """The registered result: BOOLEAN for llm_filter, JSON text for structured values, else the text."""
    if pa.types.is_string(values.type) or name == "llm_filter":
        return values
    return render_column("value", values)[1]
