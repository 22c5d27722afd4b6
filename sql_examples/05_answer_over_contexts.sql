-- Answer questions over retrieved paragraphs.
--
-- Five paragraphs were retrieved for each question, and many questions share some of them. Their order has no meaning,
-- which unordered => array('contexts') says: the planner may then put the shared ones first, and the engine reads them
-- once for all their questions (see the cached tokens in the report).
--
-- These are real questions (XQuAD, CC BY-SA 4.0, see data/NOTICE) over long paragraphs. The embedded model is too small
-- to read them: it shows the way only. Name a larger one with SET spark.llm.model = ... for real answers.

CREATE OR REPLACE TEMPORARY VIEW questions
USING parquet OPTIONS (path 'sql_examples/data/xquad_rag.parquet');

SELECT
  question,
  llm('Answer the question from the contexts.', question, contexts,
      unordered => array('contexts'), max_tokens => 16) AS answered,
  answer AS expected
FROM (
  SELECT question, array(context1, context2, context3, context4, context5) AS contexts, answer
  FROM questions
  LIMIT 8
);
