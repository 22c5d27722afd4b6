-- Ask the model about a column.
--
-- llm takes a prompt and the columns to show with it, and gives a STRING: whatever the model writes, up to max_tokens.

CREATE OR REPLACE TEMPORARY VIEW reviews
USING parquet OPTIONS (path 'sql_examples/data/reviews.parquet');

SELECT review_id, review, llm('Summarize the review in one sentence.', review, max_tokens => 32) AS summary
FROM reviews
WHERE review_id <= 8
ORDER BY review_id;
