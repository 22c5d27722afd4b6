package io.sparkllm.catalyst

import java.util.regex.Matcher

import org.apache.spark.sql.AnalysisException
import org.apache.spark.sql.catalyst.trees.CurrentOrigin

object LlmErrors {

  /** Spark builds texts from conditions in its own table only; this one is nothing but its parameter. */
  val Passthrough = "_LEGACY_ERROR_USER_RAISED_EXCEPTION"
  val PassthroughParameter = "errorMessage"

  /** The error of `condition` in `error-conditions.json`, at the position of the expression being analyzed. */
  def apply(condition: String, parameters: (String, String)*): AnalysisException =
    verbatim(text(condition, parameters: _*))

  /** An error whose text is complete. */
  def verbatim(text: String): AnalysisException =
    new AnalysisException(Passthrough, Map(PassthroughParameter -> text), CurrentOrigin.get)

  /** `[condition]` and what was wrong, a blank line, the remedy. */
  def text(condition: String, parameters: (String, String)*): String = {
    val row = Tables.condition(condition)
    val template = s"[$condition] ${row.get("message").asText}\n\n${row.get("remedy").asText}"
    // One pass over the template, so that a parameter that looks like <name> stays text.
    "<(\\w+)>".r.replaceAllIn(template, found =>
      Matcher.quoteReplacement(parameters.toMap.getOrElse(found.group(1), found.matched)))
  }

  def malformed(function: String, detail: String): AnalysisException =
    apply("LLM_MALFORMED_CALL", "function" -> function, "detail" -> detail, "usage" -> Tables.function(function).shape)
}
