-- Answer questions over retrieved texts.
--
-- Four texts were retrieved for each question, and the questions about a company share them, each time in another
-- order. The order has no meaning, which unordered => array('contexts') says: the planner may then put the shared
-- texts first, and the engine reads them once for all their questions (see the cached tokens in the report).

CREATE OR REPLACE TEMPORARY VIEW questions
USING parquet OPTIONS (path 'sql_examples/data/questions.parquet');

SELECT
  question,
  llm('Answer the question from the contexts.', question, contexts,
      unordered => array('contexts'), max_tokens => 16) AS answered,
  answer AS expected
FROM questions
WHERE question_id <= 40
ORDER BY question_id
LIMIT 10;
