CREATE TEMP VIEW big AS SELECT id, concat('row ', id) AS t FROM range(0, 1000, 1, 8);

-- calls: 3
-- ordered
SELECT llm('p', t) FROM v ORDER BY id LIMIT 3;

-- calls: 3
-- ordered
SELECT llm('p', t) FROM v ORDER BY id DESC LIMIT 3 OFFSET 2;

-- calls: 1
SELECT count(x), count(DISTINCT x) FROM (SELECT llm('constant') AS x FROM big LIMIT 20);

-- calls: 20
SELECT count(x), count(DISTINCT x) FROM (SELECT llm('p', t) AS x FROM big LIMIT 20);

-- calls: 20
SELECT count(x), count(DISTINCT x) FROM (SELECT llm('p', t) AS x FROM (SELECT * FROM big LIMIT 20));

-- calls: 20
SELECT count(x) FROM (SELECT upper(x) AS x FROM (SELECT llm('p', t) AS x, id FROM big) ORDER BY id LIMIT 20);

-- calls: 3
-- a call that is not deterministic, used twice: asked once for each row
SELECT count(x), count_if(x = y) FROM (SELECT x, x AS y FROM (SELECT llm('p', t, temperature => 1) AS x, id FROM v) ORDER BY id LIMIT 3);
