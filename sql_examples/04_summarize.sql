-- Ask for free text.
--
-- llm gives a STRING. The two calls below ask different questions about the same column, so each is asked once per
-- distinct review. max_tokens bounds the answer.

CREATE OR REPLACE TEMPORARY VIEW reviews
USING parquet OPTIONS (path 'sql_examples/data/reviews.parquet');

SELECT
  review,
  llm('Summarize the review in one sentence.', review, max_tokens => 32) AS summary,
  llm('What is criticized?', review, max_tokens => 16) AS criticized
FROM reviews
WHERE review_id BETWEEN 1 AND 10
ORDER BY review_id;
