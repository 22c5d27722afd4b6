-- Keep the rows for which the model says yes.
--
-- llm_filter asks a question about the columns that follow it and gives a BOOLEAN, so it stands in WHERE like any
-- other condition. The cheap condition on review_id acts first: the model only sees 200 of the 2000 reviews.

CREATE OR REPLACE TEMPORARY VIEW reviews
USING parquet OPTIONS (path 'sql_examples/data/reviews.parquet');

SELECT review_id, product, review
FROM reviews
WHERE review_id <= 200
  AND llm_filter('Is the review positive?', review)
ORDER BY review_id
LIMIT 10;
