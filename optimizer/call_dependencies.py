"""Dependencies between the fields of a planned call, from the text of its statement."""

from __future__ import annotations

from spark_llm.optimizer.catalog import declared_tables
from spark_llm.optimizer.core import CallSpec
from spark_llm.optimizer.errors import InvalidCall
from spark_llm.optimizer.field_order import FieldDependency


def call_dependencies(spec: CallSpec, sql: str) -> tuple[FieldDependency, ...]:
    """Which fields of `spec` determine which, where `spark.llm.dependencies` declares something for its tables.

    Empty where the text does not tell, holds several such calls that differ, or cannot be read.

    Examples
    --------
    >>> from spark_llm.optimizer.core import Field
    >>> declared = {"spark.llm.dependencies": '{"films": ["id -> title"]}'}
    >>> spec = CallSpec("llm", "Good?", (Field("title"), Field("id")), conf=declared)
    >>> call_dependencies(spec, "SELECT llm('Good?', title, id) FROM films")
    (((1,), (0,)),)
    """
    tables = declared_tables(spec.conf.get("spark.llm.dependencies", ""))
    if not tables or not sql:
        return ()
    from spark_llm.optimizer.analyze import analyze

    try:
        calls = analyze(sql, lambda name: tables.get(name.replace("`", "").lower()))
    except InvalidCall:
        return ()  # Spark has read the text; what cannot be read here only costs the hint
    names = [field.name for field in spec.fields]
    same = {
        call.dependencies
        for call in calls
        if call.function == spec.function and [field.name for field in call.fields] == names
    }
    return same.pop() if len(same) == 1 else ()
