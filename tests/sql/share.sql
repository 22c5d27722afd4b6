-- calls: 50
-- WHERE and SELECT
SELECT id, llm('p', id) AS x FROM v WHERE id >= 50 AND llm('p', id) <> 'p50';

-- calls: 50
-- a cheap predicate over a subquery's answer
SELECT * FROM (SELECT id, llm('p', t) AS a FROM v) WHERE a LIKE 'stub%' AND id < 50;

-- calls: 100
SELECT llm('p', t) AS x, llm('p', t) AS y FROM v;

-- calls: 100
-- WHERE needs some rows, SELECT needs the others
SELECT id, llm('p', id) FROM v WHERE id > 90 OR llm('p', id) IS NOT NULL;

-- calls: 100
-- an answer of an intermediate projection, used three times
SELECT x, x AS y FROM (SELECT id, llm('p', t) AS x FROM v) WHERE x IS NOT NULL;

-- calls: 147
-- two calls, each twice in SELECT, one also in WHERE: 47 rows pass
SELECT x, x AS x2, y, y AS y2 FROM (SELECT llm('a', t) AS x, llm('b', t) AS y FROM v) WHERE x LIKE '%1%';

-- calls: 10
-- SELECT, HAVING and ORDER BY over groups
-- ordered
SELECT g, llm('h', g) AS x FROM v GROUP BY g HAVING llm('h', g) IS NOT NULL ORDER BY llm('h', g);

-- calls: 10
-- a grouping key
SELECT llm('p', g) AS x, count(*) FROM v GROUP BY llm('p', g);

-- calls: 10
SELECT id, row_number() OVER (PARTITION BY llm('c', g) ORDER BY id) FROM v;

-- calls: 10
SELECT max(llm('p', g)), min(llm('p', g)) FROM v;

-- calls: 7
-- members of one extracted struct
SELECT id, llm_extract(t, 'a INT, b STRING').a, llm_extract(t, 'a INT, b STRING').b FROM v WHERE id < 7;

-- calls: 20
-- nested calls
SELECT llm('o', llm('i', g)) FROM v;

-- calls: 10
-- a scalar subquery over the same rows
SELECT (SELECT max(llm('p', g)) FROM v) AS m, llm('p', g) FROM v;

-- calls: 10
-- both branches of a union
SELECT llm('p', g) FROM v UNION ALL SELECT llm('p', g) FROM v;

-- calls: 10
-- a common table expression used twice
WITH s AS (SELECT id, llm('p', g) AS x FROM v) SELECT a.id, b.x FROM s a JOIN s b ON a.id = b.id;
