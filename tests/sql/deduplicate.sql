-- calls: 2
SELECT llm('p', c) FROM VALUES ('a'), ('b'), ('a') AS x(c);

-- calls: 2
-- NULL beside a value is asked, NULL alone is not
SELECT c, d, llm('p', c, d) FROM VALUES ('a', NULL), (NULL, 'a'), (NULL, NULL), ('a', NULL) AS x(c, d);

-- calls: 2
SELECT llm('p', c, on_error => 'struct') FROM VALUES ('a'), ('b'), ('a') AS x(c);

-- calls: 1
SELECT id, llm('constant') FROM v;

-- calls: 0
SELECT id, llm('constant') FROM v WHERE id < 0;

-- calls: 10
SELECT id, llm(concat('hi ', g)) FROM v;

-- calls: 10
SELECT id, llm('p', s) FROM (SELECT id, named_struct('a', g, 'b', array(g, NULL)) AS s FROM v);

-- calls: 10
SELECT id, llm('p', m) FROM (SELECT id, map('k', g) AS m FROM v);

-- calls: 10
SELECT id, llm('p', parse_json(concat('{"k":', g, '}'))) FROM v;

-- calls: 2
-- what the prompt shows decides: -0.0 is not 0.0, and equal under a collation is not equal
SELECT llm('p', c) FROM VALUES (0.0D), (-0.0D), (0.0D) AS x(c);

-- calls: 2
SELECT llm('p', c COLLATE UTF8_LCASE) FROM VALUES ('a'), ('A'), ('a') AS x(c);

-- calls: 100
-- ordered
SELECT id FROM v ORDER BY llm('r', t);

-- calls: 10
SELECT DISTINCT llm('p', g) FROM v;

-- calls: 10
SELECT explode(split(llm('p', g), ':')) FROM v;

-- calls: 10
SELECT sum(id) FILTER (WHERE llm_filter('a', g)) FROM v;

-- calls: 10
-- the NULL of the grand total is not asked
SELECT g, llm('p', g) FROM v GROUP BY CUBE (g);
