-- Answer real questions over retrieved paragraphs.
--
-- The questions and paragraphs are those of XQuAD (CC BY-SA 4.0, see data/NOTICE). The embedded model is too small to
-- read such paragraphs: it shows the way only. SET spark.llm.model = ... to a larger one for real answers.

CREATE OR REPLACE TEMPORARY VIEW real_questions
USING parquet OPTIONS (path 'sql_examples/data/xquad_rag.parquet');

SELECT
  question,
  llm('Answer the question from the contexts.', question, contexts,
      unordered => array('contexts'), max_tokens => 16) AS answered,
  answer AS expected
FROM (
  SELECT question, array(context1, context2, context3, context4, context5) AS contexts, answer
  FROM real_questions
  ORDER BY question
  LIMIT 8
)
ORDER BY question;
