-- Turn text into columns.
--
-- llm_extract takes the wanted columns as DDL and gives a STRUCT of these types; e.* spreads it. A value that the text
-- does not state is NULL.

CREATE OR REPLACE TEMPORARY VIEW reviews
USING parquet OPTIONS (path 'sql_examples/data/reviews.parquet');

SELECT review_id, e.*, review
FROM (
  SELECT review_id, review, llm_extract(review, 'sentiment STRING, praised STRING, criticized STRING') AS e
  FROM reviews
  WHERE review_id <= 12
)
ORDER BY review_id;
