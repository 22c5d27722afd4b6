"""What is found about the calls of a statement, in fixture pairs `statement; facts;`; dependencies also executed."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest
import sqlglot
from spark_llm.optimizer.analyze import CallAnalysis, analyze
from spark_llm.optimizer.catalog import Table, declared_tables
from spark_llm.optimizer.dialect import Spark4
from spark_llm.optimizer.errors import InvalidCall
from sqlglot import exp

CATALOG = {
    "reviews": Table({"id": "BIGINT", "movie_id": "BIGINT", "review": "STRING"}, keys=(frozenset({"id"}),)),
    "movies": Table(
        {"movie_id": "BIGINT", "title": "STRING", "year": "INT", "genre": "STRING"},
        keys=(frozenset({"movie_id"}),),
        dependencies=((frozenset({"title", "year"}), frozenset({"genre"})),),
    ),
    "toned": Table({"id": "", "tone": ""}, view="SELECT id, llm('Tone?', review) AS tone FROM reviews"),
}
ROWS = {
    "reviews": "i AS id, i % 5 AS movie_id, 'review ' || i % 7 AS review FROM range(20) t(i)",
    "movies": "i AS movie_id, 't' || i % 3 AS title, 1990 + i % 2 AS year, 'g' || i % 2 AS genre FROM range(6) t(i)",
}
FIXTURES = Path(__file__).parent / "fixtures" / "analyses"


def calls(sql: str):
    return analyze(sql, CATALOG.get)


def only(sql: str):
    [call] = calls(sql)
    return call


def base_columns(call: CallAnalysis) -> str:
    return ", ".join(sorted({f"{table}.{column}" for field in call.fields for table, column in field.base}))


def answer_uses(call: CallAnalysis) -> str:
    return ", ".join(call.uses)


def acting_before(call: CallAnalysis) -> str:
    before = call.before
    limit = [f"LIMIT {before.limit}"] if before.limit is not None else []
    stop = [f"stops after {before.early_stop}"] if before.early_stop is not None else []
    return ", ".join([*before.predicates, *limit, *stop]) or "nothing"


def functional_dependencies(call: CallAnalysis) -> str:
    names = [field.name for field in call.fields]
    found = {", ".join(names[i] for i in left) + " -> " + ", ".join(names[i] for i in right)
             for left, right in call.dependencies}  # fmt: skip
    return "; ".join(sorted(found)) or "none"


ANALYSES = {said.__name__: said for said in (base_columns, answer_uses, acting_before, functional_dependencies)}


def pairs(name: str) -> list[tuple[str, str]]:
    """Cases (statement with one call, what is found) of a fixture file."""
    blocks = (FIXTURES / f"{name}.sql").read_text().strip().split("\n\n")
    return [tuple(line.removesuffix(";") for line in block.splitlines()) for block in blocks]


@pytest.mark.parametrize(("name", "sql", "found"), [(name, *pair) for name in ANALYSES for pair in pairs(name)])
def test_analysis(name, sql, found):
    assert ANALYSES[name](only(sql)).lower() == found.lower()


def test_every_analysis_has_fixtures():
    assert {path.stem for path in FIXTURES.glob("*.sql")} == set(ANALYSES)


@pytest.mark.parametrize(("sql", "found"), pairs("functional_dependencies"))
def test_dependencies_hold_in_the_rows_of_the_statement(sql, found):
    """Executed in DuckDB, with the fields of the call in its place, over tables that have the declared keys."""
    tree = sqlglot.parse_one(sql, dialect=Spark4)
    call = next(node for node in tree.find_all(exp.Anonymous) if node.name == "llm")
    call.replace(exp.func("list_value", *(exp.cast(field.copy(), "text") for field in call.expressions[1:])))
    with duckdb.connect() as connection:
        for table, rows in ROWS.items():
            connection.execute(f"CREATE TABLE {table} AS SELECT {rows}")
        rows = [row for (row,) in connection.execute(tree.sql(dialect="duckdb")).fetchall()]
    assert len(rows) > 1
    for left, right in only(sql).dependencies:
        seen = {tuple(row[i] for i in left): tuple(row[i] for i in right) for row in rows}
        assert all(tuple(row[i] for i in right) == seen[tuple(row[i] for i in left)] for row in rows)


def test_nested_calls_and_views():
    inner, outer = sorted(calls("SELECT llm('Shorten', tone) FROM toned"), key=lambda call: call.prompt, reverse=True)
    assert (inner.prompt, outer.prompt) == ("Tone?", "Shorten")
    assert outer.fields[0].base == {("llm()", "llm"), ("reviews", "review")}
    assert inner.uses == ("argument",)
    direct = {call.prompt: call.uses for call in calls("SELECT llm('a', llm('b', review)) FROM reviews")}
    assert direct == {"a": ("result",), "b": ("argument",)}


def test_prompt_options_and_determinism():
    call = only("SELECT llm('Sum ' || 'up', review, temperature => 0.5, stop => array('x')) FROM reviews")
    assert (call.prompt, call.options, call.deterministic) == ("Sum up", {"temperature": 0.5, "stop": ["x"]}, False)
    assert only("SELECT llm(title, genre) FROM movies").prompt is None
    assert only("SELECT llm_classify(title, array('a', 'b')) FROM movies").options == {"choices": ["a", "b"]}


def test_declared_dependencies():
    tables = declared_tables('{"Films": ["id -> *", "`a`, b -> c"]}')
    assert tables["films"].keys == (frozenset({"id"}),)
    assert tables["films"].dependencies == ((frozenset({"a", "b"}), frozenset({"c"})),)
    for text in ("[]", "{", '{"t": ["a"]}', '{"t": ["a -> "]}', '{"t": 3}'):
        with pytest.raises(InvalidCall, match=r"spark\.llm\.dependencies"):
            declared_tables(text)


@pytest.mark.parametrize("sql", ["SELECT llm('secret', FROM", "((((", "SELECT " + "(" * 3000 + "llm('p')"])
def test_unreadable_text(sql):
    with pytest.raises(InvalidCall) as caught:
        calls(sql)
    assert caught.value.condition == "LLM_UNREADABLE_SQL"
    assert "secret" not in str(caught.value)
