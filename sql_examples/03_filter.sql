-- Keep the rows for which the model says yes.
--
-- llm_filter asks a question about the columns that follow it and gives a BOOLEAN, so it stands in WHERE like any
-- other condition. The cheap condition on ticket_id acts first: the model sees 100 of the 1000 messages.

CREATE OR REPLACE TEMPORARY VIEW tickets
USING parquet OPTIONS (path 'sql_examples/data/tickets.parquet');

SELECT ticket_id, customer, message
FROM tickets
WHERE ticket_id <= 100
  AND llm_filter('Is the customer angry?', message)
ORDER BY ticket_id
LIMIT 10;
