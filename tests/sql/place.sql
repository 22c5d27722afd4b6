-- calls: 10
-- a predicate on a grouping key: once per group
SELECT g, count(*) FROM v GROUP BY g HAVING llm_filter('h', g);

-- calls: 5
-- a cheap HAVING first
SELECT g, count(*) FROM v GROUP BY g HAVING llm_filter('h', g) AND min(id) < 5;

-- calls: 10
SELECT g, llm('p', max(t)) FROM v GROUP BY g;

-- calls: 76
-- two predicates that ask, one that is cheap: 50 rows, then the 26 that pass the first
SELECT count(*) FROM v WHERE llm_filter('a', t) AND llm_filter('b', t) AND id < 50;

-- calls: 91
SELECT id FROM v WHERE id > 90 OR llm_filter('p', id);

-- calls: 14
-- branches of CASE: 4 rows in the first, the other rows' 10 groups in the second
SELECT id, CASE WHEN id > 95 THEN llm('p', t) WHEN llm_filter('q', g) THEN 'y' ELSE 'n' END FROM v;

-- calls: 149
-- a branch that depends on an answer: 49 rows pass
SELECT CASE WHEN llm_filter('ok', t) THEN llm('tr', t) END FROM v;

-- calls: 3
-- the argument of coalesce that is needed
SELECT coalesce(nullif(g, 3)::string, llm('c', t)) FROM v WHERE id < 30;

-- calls: 10
-- IF, and NULL where the branch is not taken
SELECT id, if(id < 10, llm('p', t), NULL) FROM v;

-- calls: 100
-- a copy that Spark infers across the join key
SELECT a.id FROM v a JOIN v b ON llm_filter('s', a.id) AND a.id = b.id;

-- calls: 100
SELECT a.id FROM v a JOIN v b ON a.id = b.id WHERE llm_filter('s', a.id);

-- calls: 100
SELECT a.id, b.id FROM v a LEFT JOIN v b ON a.id = b.id WHERE llm_filter('s', a.id);

-- calls: 30
-- after the join has reduced
SELECT a.id FROM v a JOIN v b ON a.id = b.id WHERE llm_filter('x', a.t) AND b.id < 30;

-- calls: 20
SELECT a.id FROM v a WHERE llm_filter('x', a.t) AND a.id IN (SELECT id + 80 FROM v WHERE id < 20);

-- calls: 20
SELECT a.id FROM v a WHERE llm_filter('x', a.t) AND NOT EXISTS (SELECT 1 FROM v b WHERE b.id = a.id AND b.id >= 20);

-- calls: 50
-- a row predicate as well, so the key predicate stays below: 10 groups, then the rows of the 4 that pass
SELECT g, count(*) FROM v WHERE llm_filter('a', g) AND llm_filter('b', t) GROUP BY g;

-- calls: 10
-- an aggregate's argument: distinct tuples, not rows of groups
SELECT id % 3, avg(length(llm('p', g))), count(DISTINCT llm('p', g)) FROM v GROUP BY id % 3;
