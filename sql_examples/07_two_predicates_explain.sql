-- Two questions in one WHERE, and what the planner makes of them.
--
-- EXPLAIN asks the model nothing. It shows which conditions act first, how many distinct rows each call will ask, and
-- for every rewrite that does not apply the reason. A row that fails one question is not asked the other.

CREATE OR REPLACE TEMPORARY VIEW reviews
USING parquet OPTIONS (path 'sql_examples/data/reviews.parquet');

EXPLAIN
SELECT review_id, review
FROM reviews
WHERE review_id <= 150
  AND category <> 'books'
  AND llm_filter('Is the review negative?', review)
  AND llm_filter('Does the review complain about the price?', review);

SELECT review_id, review
FROM reviews
WHERE review_id <= 150
  AND category <> 'books'
  AND llm_filter('Is the review negative?', review)
  AND llm_filter('Does the review complain about the price?', review)
ORDER BY review_id
LIMIT 10;
