package io.sparkllm.catalyst.report

import scala.jdk.CollectionConverters._

import com.fasterxml.jackson.databind.JsonNode
import io.sparkllm.catalyst.Json
import io.sparkllm.catalyst.python.PythonPickle

import org.apache.spark.sql.ExtendedExplainGenerator
import org.apache.spark.sql.catalyst.expressions.PythonUDF
import org.apache.spark.sql.execution.{ReusedSubqueryExec, SparkPlan}
import org.apache.spark.sql.execution.adaptive.{AdaptiveSparkPlanExec, QueryStageExec}
import org.apache.spark.sql.execution.exchange.ReusedExchangeExec
import org.apache.spark.sql.sparkllm.SparkPython

/** The section of EXPLAIN about calls; all it says travels in the bound functions' specs. */
class LlmExplain extends ExtendedExplainGenerator {
  private val ShownInstruction = 60

  override def title: String = "LLM"

  override def generateExtendedInfo(plan: SparkPlan): String = {
    val specs = nodes(plan).flatMap(_.expressions).flatMap(_.collect { case udf: PythonUDF => udf })
      .flatMap(udf => PythonPickle.spec(SparkPython.command(udf)))
    if (specs.isEmpty) "no LLM call" else specs.distinct.map(spec => describe(Json.parse(spec))).mkString("\n")
  }

  private def nodes(plan: SparkPlan): Seq[SparkPlan] = plan match {
    case adaptive: AdaptiveSparkPlanExec => nodes(adaptive.executedPlan)
    case stage: QueryStageExec => nodes(stage.plan)
    case _: ReusedExchangeExec | _: ReusedSubqueryExec => Nil
    case other => other +: (other.children ++ other.subqueries).flatMap(nodes)
  }

  private def describe(spec: JsonNode): String = {
    val fields = spec.get("fields").elements.asScala.map(_.get("name").asText).toSeq
    val plan = Option(spec.get("plan")).filterNot(_.isNull)
    val order = plan.fold(fields)(_.get("order").elements.asScala.map(i => fields(i.asInt)).toSeq)
    val reasons = plan.fold(Seq("evaluated where it stands: spark.llm.optimize.enabled is false"))(
      _.get("reasons").elements.asScala.map(_.asText).toSeq)
    val terms = Option(spec.get("terms")).toSeq.flatMap(_.elements.asScala.map(_.get("call")))
    val asked = (if (terms.isEmpty) Seq(spec) else terms).map(call => s"${call.get("function").asText}(${instruction(call)})")
    val head = s"${asked.mkString(" AND ")} fields: ${order.mkString(", ")}"
    (head +: (reasons ++ plan.flatMap(estimate)).map("  " + _)).mkString("\n")
  }

  private def instruction(spec: JsonNode): String = {
    val text = spec.get("instruction").asText.replaceAll("\\s+", " ")
    if (text.length <= ShownInstruction) text else text.take(ShownInstruction) + "..."
  }

  private def estimate(plan: JsonNode): Option[String] = {
    val known = Seq("rows" -> "rows", "distinct" -> "distinct calls", "prompt_tokens" -> "prompt tokens",
      "cached_tokens" -> "of them cached").flatMap { case (key, words) =>
      Option(plan.get("estimate").get(key)).map(value => f"${value.asDouble}%.0f $words")
    }
    Option.when(known.nonEmpty)(known.mkString("estimate: ", ", ", ""))
  }
}
