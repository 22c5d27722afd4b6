-- Two questions in one WHERE, and what the planner makes of them.
--
-- EXPLAIN asks the model nothing. It shows which conditions act first, how many distinct rows each call will ask, and
-- for every rewrite that does not apply the reason. A row that fails one question is not asked the other.

CREATE OR REPLACE TEMPORARY VIEW tickets
USING parquet OPTIONS (path 'sql_examples/data/tickets.parquet');

EXPLAIN
SELECT ticket_id, message
FROM tickets
WHERE ticket_id <= 200
  AND llm_filter('Is the customer angry?', message)
  AND llm_filter('Is it about shipping?', message);

SELECT ticket_id, message
FROM tickets
WHERE ticket_id <= 200
  AND llm_filter('Is the customer angry?', message)
  AND llm_filter('Is it about shipping?', message)
ORDER BY ticket_id
LIMIT 10;
