"""What is found about the calls of a statement: lineage, uses, what acts before, dependencies."""

from __future__ import annotations

import pytest
from spark_llm.optimizer.analyze import analyze
from spark_llm.optimizer.catalog import Table, declared_tables
from spark_llm.optimizer.errors import InvalidCall

CATALOG = {
    "reviews": Table({"id": "BIGINT", "movie_id": "BIGINT", "review": "STRING"}, keys=(frozenset({"id"}),)),
    "movies": Table(
        {"movie_id": "BIGINT", "title": "STRING", "year": "INT", "genre": "STRING"},
        keys=(frozenset({"movie_id"}),),
        dependencies=((frozenset({"title", "year"}), frozenset({"genre"})),),
    ),
    "toned": Table({"id": "", "tone": ""}, view="SELECT id, llm('Tone?', review) AS tone FROM reviews"),
}


def calls(sql: str):
    return analyze(sql, CATALOG.get)


def only(sql: str):
    [call] = calls(sql)
    return call


def base(sql: str) -> set[str]:
    return {f"{table}.{column}" for field in only(sql).fields for table, column in field.base}


@pytest.mark.parametrize(
    ("sql", "columns"),
    [
        ("SELECT llm('p', review) FROM reviews", {"reviews.review"}),
        ("SELECT llm('p', upper(r.review) || m.title) FROM reviews r JOIN movies m USING (movie_id)", {
            "reviews.review", "movies.title"}),
        ("SELECT llm('p', review, title) FROM reviews r, movies m", {"reviews.review", "movies.title"}),
        ("SELECT llm('p', x) FROM (SELECT concat(title, genre) AS x FROM movies) s", {"movies.title", "movies.genre"}),
        ("WITH c AS (SELECT review AS x FROM reviews) SELECT llm('p', d.x) FROM c d", {"reviews.review"}),
        ("SELECT llm('p', x) FROM (SELECT title AS x FROM movies UNION ALL SELECT review FROM reviews) u", {
            "movies.title", "reviews.review"}),
        ("SELECT llm('p', s.*) FROM (SELECT title, year FROM movies) s", {"movies.title", "movies.year"}),
        ("SELECT 1 FROM movies m WHERE EXISTS (SELECT 1 FROM reviews r WHERE llm_filter('p', review, m.title))", {
            "reviews.review", "movies.title"}),
        ("SELECT llm('p', n) FROM (SELECT row_number() OVER (PARTITION BY genre ORDER BY year) AS n FROM movies) s", {
            "movies.genre", "movies.year"}),
        ("SELECT llm('p', tone) FROM (SELECT * FROM (SELECT title AS tone FROM movies)) s", {"movies.title"}),
        ("CREATE TABLE x AS SELECT llm('p', title) FROM movies", {"movies.title"}),
        ("SELECT llm('p', elsewhere) FROM nowhere", {"nowhere.elsewhere"}),
    ],
)  # fmt: skip
def test_lineage(sql, columns):
    assert base(sql) == columns


def test_nested_calls_and_views():
    inner, outer = sorted(calls("SELECT llm('Shorten', tone) FROM toned"), key=lambda call: call.prompt, reverse=True)
    assert (inner.prompt, outer.prompt) == ("Tone?", "Shorten")
    assert outer.fields[0].base == {("llm()", "llm"), ("reviews", "review")}
    assert inner.uses == ("argument",)
    direct = {call.prompt: call.uses for call in calls("SELECT llm('a', llm('b', review)) FROM reviews")}
    assert direct == {"a": ("result",), "b": ("argument",)}


@pytest.mark.parametrize(
    ("sql", "uses"),
    [
        ("SELECT llm('p', review) FROM reviews", ("result",)),
        ("SELECT llm('p', review) AS x FROM reviews ORDER BY x", ("ORDER BY", "result")),
        ("SELECT id FROM reviews WHERE llm_filter('p', review)", ("WHERE",)),
        ("SELECT max(llm('p', review)) FROM reviews", ("aggregate", "result")),
        ("SELECT count(*) FROM reviews GROUP BY llm('p', review)", ("GROUP BY",)),
        ("SELECT movie_id FROM reviews GROUP BY movie_id HAVING llm_filter('p', movie_id)", ("HAVING",)),
        ("SELECT rank() OVER (ORDER BY llm('p', review)) FROM reviews", ("result", "window")),
        ("SELECT 1 FROM reviews r JOIN movies m ON llm('p', r.review) = m.title", ("JOIN ON",)),
        ("SELECT id FROM (SELECT id, llm('p', review) AS x FROM reviews) WHERE x = 'a'", ("WHERE",)),
        ("WITH c AS (SELECT llm('p', review) AS x FROM reviews) SELECT max(x) FROM c WHERE x > 'a'", (
            "WHERE", "aggregate", "result")),
        ("SELECT llm('p', review) AS x FROM reviews UNION SELECT title FROM movies", ("result",)),
        ("SELECT 1 FROM movies WHERE title IN (SELECT llm('p', review) FROM reviews)", ("WHERE",)),
        ("SELECT * FROM (SELECT llm('p', review) AS x FROM reviews)", ("result",)),
    ],
)  # fmt: skip
def test_uses(sql, uses):
    assert only(sql).uses == uses


@pytest.mark.parametrize(
    ("sql", "predicates", "limit", "early_stop"),
    [
        ("SELECT llm('p', review) FROM reviews WHERE id > 3 LIMIT 5", ("id > 3",), 5, None),
        ("SELECT id FROM reviews WHERE llm_filter('p', review) AND id > 3 LIMIT 5", ("id > 3",), None, 5),
        ("SELECT id FROM reviews WHERE llm_filter('p', review) LIMIT 5 OFFSET 2", (), None, 7),
        ("SELECT llm('p', review) AS x FROM reviews ORDER BY x LIMIT 5", (), None, None),
        ("SELECT llm('p', review) AS x FROM reviews ORDER BY id LIMIT 5", (), 5, None),
        ("SELECT DISTINCT llm('p', review) FROM reviews LIMIT 5", (), None, None),
        ("SELECT count(*) FROM reviews WHERE llm_filter('p', review) LIMIT 1", (), None, None),
        ("SELECT * FROM (SELECT id, llm('p', review) AS x FROM reviews) s WHERE id > 3 LIMIT 2", ("id > 3",), 2, None),
        ("SELECT * FROM (SELECT id, llm('p', review) AS x FROM reviews) s WHERE x = 'a' LIMIT 2", (), None, 2),
        ("SELECT * FROM (SELECT id, llm('p', review) AS x FROM reviews LIMIT 9) s WHERE id > 3", (), 9, None),
        ("SELECT llm('p', review) FROM reviews r JOIN movies m ON r.movie_id = m.movie_id AND m.year > 2000", (
            "r.movie_id = m.movie_id", "m.year > 2000"), None, None),
        ("SELECT movie_id FROM reviews WHERE id > 1 GROUP BY movie_id HAVING count(*) > 2 AND llm_filter('p', 1)",
            ("id > 1", "count(*) > 2"), None, None),
        ("SELECT movie_id, max(llm('p', review)) FROM reviews WHERE id > 1 GROUP BY movie_id LIMIT 3",
            ("id > 1",), None, None),
    ],
)  # fmt: skip
def test_what_acts_before(sql, predicates, limit, early_stop):
    before = only(sql).before
    assert tuple(p.lower() for p in before.predicates) == tuple(p.lower() for p in predicates)
    assert (before.limit, before.early_stop) == (limit, early_stop)


def named(sql: str) -> set[str]:
    call = only(sql)
    names = [field.name for field in call.fields]
    return {f"{', '.join(names[i] for i in left)} -> {', '.join(names[i] for i in right)}"
            for left, right in call.dependencies}  # fmt: skip


@pytest.mark.parametrize(
    ("sql", "dependencies"),
    [
        ("SELECT llm('p', review, id) FROM reviews", {"id -> review"}),
        ("SELECT llm('p', genre, year, title) FROM movies", {"year, title -> genre"}),
        ("SELECT llm('p', review, r.movie_id, title) FROM reviews r JOIN movies m ON r.movie_id = m.movie_id", {
            "movie_id -> title"}),
        ("SELECT llm('p', id, title) FROM reviews r JOIN movies m ON r.movie_id = m.movie_id", {"id -> title"}),
        ("SELECT llm('p', r.movie_id, upper(m.title)) FROM reviews r, movies m WHERE m.movie_id = r.movie_id", {
            "movie_id -> field_2"}),
        ("SELECT llm('p', a, b) FROM (SELECT id AS a, review AS b FROM reviews) s", {"a -> b"}),
        ("SELECT llm('p', genre, n) FROM (SELECT genre, count(*) AS n FROM movies GROUP BY genre) s", {"genre -> n"}),
        ("SELECT llm('p', review, movie_id) FROM reviews", set()),
        ("SELECT llm('p', r.movie_id, title) FROM reviews r LEFT JOIN movies m ON r.movie_id = m.movie_id", set()),
        ("SELECT llm('p', a) FROM (SELECT id AS a FROM reviews UNION ALL SELECT movie_id FROM movies) s", set()),
    ],
)  # fmt: skip
def test_dependencies(sql, dependencies):
    assert named(sql) == dependencies


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
