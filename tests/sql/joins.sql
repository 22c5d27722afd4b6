-- calls: 10
SELECT a.id, llm('pair', a.g, b.g) FROM v a JOIN v b ON a.g = b.g WHERE a.id < 20 AND b.id < 20;

-- calls: 10
SELECT a.id, b.id FROM v a LEFT JOIN v b ON a.id = b.id AND llm_filter('s', b.g);

-- calls: 10
SELECT a.id, b.id FROM v a LEFT JOIN v b ON a.id = b.id AND llm_filter('s', a.g);

-- calls: 10
SELECT id FROM v a WHERE EXISTS (SELECT 1 FROM v b WHERE b.id = a.id AND llm_filter('s', b.g));

-- calls: 10
SELECT id FROM v WHERE g IN (SELECT g FROM v WHERE llm_filter('a', g));

-- calls: 10
-- only optimized
-- Spark has no Python function in the condition of a semi join
SELECT id FROM v a WHERE EXISTS (SELECT 1 FROM v b WHERE b.g = a.g AND llm_filter('s', b.g, a.g));

-- calls: 10
-- only optimized
-- nor in that of an outer join
SELECT a.id, b.id FROM v a LEFT JOIN v b ON a.id = b.id AND llm_filter('s', a.g, b.g);

-- calls: 10
-- only optimized
-- nor in that of an outer join
SELECT a.id, b.id FROM v a RIGHT JOIN v b ON a.id = b.id AND llm_filter('s', a.g, b.g);

-- calls: 100
-- labels of either side: each row is asked once, not each pair
SELECT a.id, b.id FROM v a JOIN v b ON llm_classify(a.t, array('x', 'y')) = llm_classify(b.t, array('x', 'y')) AND a.id < b.id;

-- calls: 20
-- where a key reduces the pairs, what is left is asked, each call by itself
SELECT a.id FROM v a JOIN v b ON a.id = b.id AND llm('p', a.g) = llm('p', b.g);
