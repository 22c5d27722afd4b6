-- Two questions in one WHERE, and what the planner makes of them.
--
-- EXPLAIN asks the model nothing. It shows which conditions act first, how many distinct rows each call will ask, and
-- for every rewrite that does not apply the reason. Only rows that pass the first question are asked the second.

CREATE OR REPLACE TEMPORARY VIEW reviews
USING parquet OPTIONS (path 'sql_examples/data/reviews.parquet');

EXPLAIN
SELECT review_id, review
FROM reviews
WHERE stars <= 2
  AND review_id <= 400
  AND llm_filter('Does the review complain about the price?', review)
  AND llm_filter('Is the review negative?', review);

SELECT review_id, review
FROM reviews
WHERE stars <= 2
  AND review_id <= 400
  AND llm_filter('Does the review complain about the price?', review)
  AND llm_filter('Is the review negative?', review)
ORDER BY review_id;
