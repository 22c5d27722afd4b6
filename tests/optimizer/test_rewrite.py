"""The sqlglot passes: fixture pairs `input; expected;`, both sides executed with a stub model in DuckDB."""

from __future__ import annotations

import functools
import importlib
import json
import zlib
from collections import Counter
from pathlib import Path

import duckdb
import pytest
import spark_llm.optimizer
import sqlglot
from spark_llm.optimizer.catalog import Table
from spark_llm.optimizer.core import CallSpec, Field
from spark_llm.optimizer.dialect import Spark4
from spark_llm.optimizer.errors import InvalidCall
from spark_llm.optimizer.prompts import prepare
from spark_llm.optimizer.rewrite import rewrite
from sqlglot import exp

FIXTURES = Path(__file__).parent / "fixtures"
TABLES = {
    "reviews": Table({"id": "bigint", "review": "string", "title": "string", "year": "bigint"}),
    "movies": Table({"title": "string", "genre": "string"}),
    "odd": Table({"a b": "string", "c.d": "string"}),
    "scores": Table({"id": "bigint", "score": "double"}),
}
DATA = {
    "reviews": "i AS id, 'review ' || i % 4 AS review, 't' || i % 3 AS title, 1997 + i AS year FROM range(8) t(i)",
    "scores": "i AS id, i / 2 AS score FROM range(4) t(i)",
    "movies": "'t' || i AS title, 'genre ' || i % 2 AS genre FROM range(3) t(i)",
    "odd": """'x' || i AS "a b", 'y' AS "c.d" FROM range(2) t(i)""",
    "notes": "'' AS note FROM range(0)",
}
VIEWS = {
    "recent": "SELECT id, review, title FROM reviews WHERE year > 1998",
    "liked": "SELECT * FROM recent WHERE llm_filter('Good?', review)",
}
TABLES |= {name: Table(view=query) for name, query in VIEWS.items()}
OPTIMIZER = Path(spark_llm.optimizer.__file__).parent


def passes():
    """Files whose one public function makes a tree of a tree."""
    for path in sorted(OPTIMIZER.glob("*.py")):
        function = getattr(importlib.import_module(f"spark_llm.optimizer.{path.stem}"), path.stem, None)
        kinds = list(getattr(function, "__annotations__", {}).values())
        if "exp.Expr" in kinds[:1] and kinds[-1] == "exp.Expr":
            yield path.stem


PASSES = list(passes())


def pairs(name: str):
    """Cases (input, expected) of a fixture file."""
    for block in (FIXTURES / f"{name}.sql").read_text().strip().split("\n\n"):
        yield tuple(line.removesuffix(";") for line in block.splitlines() if not line.startswith("#"))


def cases():
    return [(name, *pair) for name in PASSES for pair in pairs(name)]


def apply(name: str, text: str) -> str:
    function = getattr(importlib.import_module(f"spark_llm.optimizer.{name}"), name)
    catalog, reasons = [TABLES.get], [[]]
    more = {
        "expand_stars": catalog,
        "expand_views": catalog,
        "classify_before_join": catalog + reasons,
        "deduplicate_aggregates": catalog + reasons,
        "ask_together": reasons,
    }.get(name, [])
    return function(sqlglot.parse_one(text, dialect=Spark4), *more).sql(dialect=Spark4, normalize_functions=False)


def executable(spark_sql: str) -> str:
    """The statement for DuckDB, which has neither named arguments nor a star among arguments, and parses no answers."""
    tree = sqlglot.parse_one(spark_sql, dialect=Spark4)
    for parsed in list(tree.find_all(exp.FromJson)):
        _as_answered(parsed)
    for call in [call for call in tree.find_all(exp.Anonymous) if call.name.lower().startswith("llm")]:
        arguments = [a.this if isinstance(a, exp.Alias) else a for a in call.expressions]
        if isinstance(arguments[-1], exp.Literal) and arguments[-1].this.startswith('{"'):
            del arguments[-1]  # options, lowered
        named, empty = (exp.Kwarg, exp.PropertyEQ), exp.Struct()
        call.set("expressions", [_unpacked(a) for a in arguments if not isinstance(a, named) and a != empty])
    return tree.sql(dialect="duckdb", normalize_functions=False)


def _as_answered(parsed: exp.Expr) -> None:
    """The stub gives values, not their JSON text."""
    answer = parsed.this
    if isinstance(answer, exp.Concat):  # a scalar comes as {"v":...}
        parsed.parent.replace(answer.expressions[1])
    else:
        parsed.replace(answer)


def _unpacked(argument: exp.Expr) -> exp.Expr:
    return exp.Var(this=f"*COLUMNS({argument.sql('duckdb')})") if argument.is_star else argument


class Model:
    """A deterministic model that counts its calls; a struct of fields is the same to it as the fields.

    DuckDB allows no function with `side_effects` in PARTITION BY, and asks others as often as it likes.
    """

    def __init__(self, side_effects=True):
        self.calls: Counter[str] = Counter()
        self.connection = duckdb.connect()
        for table, columns in DATA.items():
            self.connection.execute(f"CREATE TABLE {table} AS SELECT {columns}")
        kinds = {"llm": "VARCHAR", "llm_filter": "BOOLEAN", "llm_classify": "VARCHAR"}
        kinds["llm_extract"] = "STRUCT(actor VARCHAR, score INT)"
        functions = {name: (functools.partial(self._answer, name), kind) for name, kind in kinds.items()}
        for name in ("llm_all", "llm_first"):
            functions[name] = functools.partial(self._passes, keep=name == "llm_first"), "BOOLEAN"
        for name, (function, kind) in functions.items():
            self.connection.create_function(
                name, function, None, kind, null_handling="special", side_effects=side_effects
            )
        for view, query in VIEWS.items():
            self.connection.execute(f"CREATE VIEW {view} AS {query}")
        self.connection.execute("CREATE MACRO raise_error(message) AS error(message)")
        self.connection.execute("CREATE SCHEMA db; CREATE MACRO db.llm(prompt, field) AS prompt || field")

    def _answer(self, name, *arguments):
        flat = [v for a in arguments for v in (a.values() if isinstance(a, dict) else [a])]
        self.calls[name] += 1
        code = zlib.crc32("".join(map(str, flat)).encode())  # wherever the prompt ends and fields begin
        if name == "llm_classify":
            return flat[-1][code % len(flat[-1])]
        if name == "llm_extract":
            return {"actor": f"actor {code}", "score": code % 9}
        return code % 4 > 0 if name == "llm_filter" else f"answer {code}"

    def _passes(self, text, *structs, keep):
        """A conjunction in the order of the text; a row that is not kept asks nothing."""
        if keep and not structs[0]:
            return False
        terms = zip(json.loads(text)["terms"], structs[keep:], strict=True)
        return all(self._passes_term(term, struct) for term, struct in terms)

    def _passes_term(self, term, struct):
        constants = term["constants"]
        arguments = [*constants[:1], struct] if term["function"] != "llm_classify" else [struct, *constants[:1]]
        test, values = term["test"]
        return (self._answer(term["function"], *arguments) in values) == (test == "in")

    def run(self, spark_sql: str):
        """Rows (sorted, for order is not at issue) and the number of calls."""
        self.calls.clear()
        result = self.connection.execute(executable(spark_sql))
        if spark_sql.startswith("INSERT"):
            result = self.connection.execute("DELETE FROM notes RETURNING note")
        return sorted(result.fetchall(), key=repr), sum(self.calls.values())


@pytest.fixture(scope="module")
def model():
    stub = Model()
    yield stub
    stub.connection.close()


@pytest.fixture(scope="module")
def pure_model():
    stub = Model(side_effects=False)
    yield stub
    stub.connection.close()


@pytest.mark.parametrize(("name", "text", "expected"), cases())
def test_pass(name, text, expected):
    assert apply(name, text) == expected
    assert name == "lower_calls" or apply(name, expected) == expected


def test_every_pass_has_fixtures():
    assert len(PASSES) >= 9
    assert {path.stem for path in FIXTURES.glob("*.sql")} == set(PASSES)
    assert all(any(text != expected for text, expected in pairs(name)) for name in PASSES if name != "check_places")


@pytest.mark.parametrize(("name", "text", "expected"), cases())
def test_both_sides_give_the_same_rows(pure_model, name, text, expected):
    before, after = pure_model.run(text), pure_model.run(expected)
    assert after[0] == before[0]
    assert before[0]


def test_sharing_asks_once_per_row(model):
    text = "SELECT id, llm('Tone?', review) AS tone FROM reviews WHERE llm('Tone?', review) <> '' AND year > 1998"
    assert model.run(text)[1] == 12
    assert model.run(apply("share_calls", text))[1] == 6


def test_sides_of_a_join_are_asked_once_per_row(model):
    label = "llm_classify({}.review, ARRAY('a', 'b', 'c'))"
    text = f"SELECT a.id, b.id FROM reviews AS a JOIN reviews AS b ON {label.format('a')} <> {label.format('b')}"
    rows, _ = model.run(text)
    assert len(rows) > 16
    assert model.run(apply("classify_before_join", text)) == (rows, 16)


def test_aggregates_ask_distinct_arguments(model):
    text = "SELECT title, MIN(llm('Tone?', review)), MAX(llm('Tone?', review)) FROM reviews GROUP BY title"
    assert model.run(text)[1] >= 8
    assert model.run(apply("deduplicate_aggregates", text))[1] == 4


def test_what_is_not_rewritten_says_why():
    reasons: list[str] = []
    text = "SELECT MAX(llm('Tone?', score)) FROM scores WHERE llm_filter('x', score) AND llm('y', score) LIKE 'a%'"
    rewrite(text, TABLES.get, off={"joins"}, reasons=reasons)
    assert reasons == [
        "spark.llm.optimize.joins.enabled is false",
        "asked for every row of a group: equal values of its fields may read differently",
        "a predicate is asked apart: it is not a comparison of one answer with constants",
    ]


@pytest.mark.parametrize("off", ["share", "place", "joins", "deduplicate", "predicates", "limits"])
def test_every_rewrite_has_its_switch(off):
    text = {
        "share": "SELECT llm('x', title) AS a, llm('x', title) AS b FROM movies",
        "place": "SELECT 1 FROM movies WHERE llm_filter('x', title) AND title > 'a'",
        "joins": "SELECT 1 FROM movies AS a JOIN movies AS b ON llm('x', a.title) = llm('x', b.title)",
        "deduplicate": "SELECT MAX(llm('x', title)) FROM movies",
        "predicates": "SELECT 1 FROM movies WHERE llm_filter('x', title) AND llm_filter('y', title)",
        "limits": "SELECT 1 FROM movies WHERE llm_filter('x', title) LIMIT 3",
    }[off]
    plain = rewrite(text, TABLES.get, off={"share", "place", "joins", "deduplicate", "predicates", "limits"})
    assert rewrite(text, TABLES.get, off={off}) == plain != rewrite(text, TABLES.get)


def test_rewrite_applies_every_pass():
    text = (
        "SELECT llm('Tone?', *, seed => 1) AS tone FROM movies WHERE llm('Tone?', *, seed => 1) <> '' AND title > 'a'"
    )
    call = "llm('Tone?', STRUCT(movies.title AS title, movies.genre AS genre), '{\"seed\": 1}')"
    assert rewrite(text, TABLES.get) == (
        f"SELECT movies.__llm_1 AS tone FROM (SELECT *, {call} AS __llm_1 FROM movies WHERE title > 'a') AS movies "
        "WHERE movies.__llm_1 <> ''"
    )


@pytest.mark.parametrize(
    "text", ["SELECT 'it''s'  FROM t -- as it is", "SHOW TABLES", "", "SELECT llm FROM t", "not SQL"]
)
def test_text_without_a_call_comes_back_as_it_is(text):
    assert rewrite(text, TABLES.get) == text


@pytest.mark.parametrize(
    "text",
    [
        "SELECT MAX(llm('x', title)) AS a FROM reviews AS r JOIN movies AS m ON r.title = m.title",
        "SELECT r.id FROM reviews AS r JOIN movies AS m ON llm('x', title) = llm('x', genre)",
    ],
)
def test_an_ambiguous_field_is_left_for_spark_to_refuse(text):
    for name in ("deduplicate_aggregates", "classify_before_join", "share_calls"):
        assert apply(name, text) == text
    assert "title AS title" in rewrite(text, TABLES.get)


@pytest.mark.parametrize("prefix", ["EXPLAIN ", "explain formatted\n", "EXPLAIN EXTENDED "])
def test_explain_stays_in_front(prefix):
    assert rewrite(f"{prefix}SELECT llm('x', title) FROM movies", TABLES.get).startswith(
        f"{prefix}SELECT llm('x', STRUCT("
    )


def test_names_are_those_of_the_prompt():
    """What the plain function receives makes the prompt of the planned way."""
    lowered = rewrite("SELECT llm('Same as {m.title}?', r.title, m.title) FROM reviews r, movies m", TABLES.get)
    struct = sqlglot.parse_one(lowered, dialect=Spark4).find(sqlglot.exp.Struct)
    names = [member.name for member in struct.expressions]
    prompt = prepare(CallSpec("llm", "Same as {m.title}?", tuple(Field(name) for name in names)))
    assert names == ["r.title", "m.title"]
    assert prompt.call["instruction"].startswith('Same as "m.title"?')


@pytest.mark.parametrize(
    ("text", "condition", "part"),
    [
        ("SELECT llm('x', title, max_token => 1) FROM movies", "LLM_UNKNOWN_OPTION", "accepted: model, max_tokens"),
        ("SELECT llm('x', title, max_tokens => 0) FROM movies", "LLM_BAD_OPTION", "a constant INT >= 1, got 0"),
        ("SELECT llm('x', title, max_tokens => id) FROM reviews", "LLM_BAD_OPTION", "the expression Column"),
        ("SELECT llm('x', title, seed => 1, seed => 2) FROM movies", "LLM_MALFORMED_CALL", "given twice"),
        ("SELECT llm('x', title, on_error => 'struct') FROM movies", "LLM_BAD_OPTION", "without the extension"),
        ("SELECT llm('x', title, unordered => array('y')) FROM movies", "LLM_UNKNOWN_FIELD", "fields: title"),
        ("SELECT llm() FROM movies", "LLM_MALFORMED_CALL", "the prompt is missing"),
        ("SELECT llm_classify(title) FROM movies", "LLM_MALFORMED_CALL", "it has no field"),
        ("SELECT llm_classify(title, genre) FROM movies", "LLM_MALFORMED_CALL", "must be constant"),
        ("SELECT llm_classify(title, array('a')) FROM movies", "LLM_MALFORMED_CALL", "two distinct labels"),
        ("SELECT llm_extract(title, 'nothing') FROM movies", "LLM_MALFORMED_CALL", "is no type"),
        ("SELECT llm_extract(title, 'a BINARY') FROM movies", "LLM_MALFORMED_CALL", "cannot have the type BINARY"),
        ("SELECT llm('x', y.*) FROM movies", "LLM_MALFORMED_CALL", "y.* names no relation of its FROM (movies)"),
        ("SELECT llm('x', *) FROM explode(array(1)) AS e", "LLM_MALFORMED_CALL", "name them instead of *"),
        ("SELECT 1 FROM movies ORDER BY llm('x', title, temperature => 1)", "LLM_NONDETERMINISTIC_HERE", "ORDER BY"),
        ("SELECT 1 FROM movies GROUP BY llm('x', title, temperature => 1)", "LLM_NONDETERMINISTIC_HERE", "GROUP BY"),
        ("SELECT llm('secret', FROM", "LLM_UNREADABLE_SQL", "line 1"),
        ("GRANT llm('secret') TO x", "LLM_UNREADABLE_SQL", "this kind of statement"),
    ],
)
def test_unusable_statements_say_why(text, condition, part):
    with pytest.raises(InvalidCall) as caught:
        rewrite(text, TABLES.get)
    assert caught.value.condition == condition
    assert part in str(caught.value)
    assert "secret" not in str(caught.value)
