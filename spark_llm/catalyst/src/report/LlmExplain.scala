package io.sparkllm.catalyst.report

import scala.jdk.CollectionConverters._

import com.fasterxml.jackson.databind.JsonNode
import io.sparkllm.catalyst.{Json, Tables}
import io.sparkllm.catalyst.python.PythonPickle

import org.apache.spark.sql.ExtendedExplainGenerator
import org.apache.spark.sql.catalyst.expressions.{Expression, PythonUDF}
import org.apache.spark.sql.execution.{ReusedSubqueryExec, SparkPlan}
import org.apache.spark.sql.execution.adaptive.{AdaptiveSparkPlanExec, QueryStageExec}
import org.apache.spark.sql.execution.exchange.ReusedExchangeExec
import org.apache.spark.sql.sparkllm.SparkPython

/** The section of EXPLAIN about calls; all it says travels in the bound functions' specs. */
class LlmExplain extends ExtendedExplainGenerator {
  private val ShownInstruction = 60

  override def title: String = "LLM"

  override def generateExtendedInfo(plan: SparkPlan): String = {
    val specs = LlmExplain.specs(nodes(plan).flatMap(_.expressions))
    if (specs.isEmpty) "no LLM call" else (specs.map(describe) ++ total(specs)).mkString("\n")
  }

  private def total(specs: Seq[JsonNode]): Option[String] =
    Work.expected(specs).filter(_ => specs.size > 1).map(work => s"all calls: ${work.words}")

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
    (head +: engine(spec) +: (reasons ++ plan.flatMap(estimate)).map("  " + _)).mkString("\n")
  }

  private def engine(spec: JsonNode): String = {
    def setting(name: String) = Option(spec.get("conf").get(s"spark.llm.$name")).map(_.asText)
      .getOrElse(Tables.confDefault(s"spark.llm.$name"))
    val model = Option(spec.get("options").get("model")).map(_.asText).getOrElse(setting("model"))
    s"asked of: ${setting("engine")} engine, model $model"
  }

  private def instruction(spec: JsonNode): String = {
    val text = spec.get("instruction").asText.replaceAll("\\s+", " ")
    if (text.length <= ShownInstruction) text else text.take(ShownInstruction) + "..."
  }

  private def estimate(plan: JsonNode): Option[String] =
    Option(plan.get("estimate")).filter(_.has("prompt_tokens")).map(known => s"estimate: ${Work.of(known).words}")
}

object LlmExplain {

  /** The specs of the bound calls in `expressions`, each once. */
  def specs(expressions: Seq[Expression]): Seq[JsonNode] =
    expressions.flatMap(_.collect { case udf: PythonUDF => udf })
      .flatMap(udf => PythonPickle.spec(SparkPython.command(udf))).distinct.map(Json.parse)
}
