package io.sparkllm.catalyst.report

import com.fasterxml.jackson.databind.JsonNode
import com.fasterxml.jackson.databind.node.ObjectNode
import io.sparkllm.catalyst.Json
import io.sparkllm.catalyst.functions.LlmCall
import io.sparkllm.catalyst.planner.CallPlanner
import io.sparkllm.catalyst.rules.BindLlmCalls

import org.apache.spark.sql.catalyst.InternalRow
import org.apache.spark.sql.catalyst.expressions._
import org.apache.spark.sql.catalyst.plans.logical.{LocalRelation, LogicalPlan, Project, Repartition}
import org.apache.spark.sql.execution.{QueryExecution, SQLExecution}
import org.apache.spark.sql.types.{DataType, StringType}
import org.apache.spark.unsafe.types.UTF8String

/** Asks the sample of each call of a query in two field orders, for `spark_llm.order_sensitivity`. */
object OrderSensitivity {

  /** A JSON array of `{"spec": CallSpec, "written": [JSON text or null, ...], "planned": [...]}`. */
  def ask(query: QueryExecution, rows: Int): String = {
    val specs = LlmExplain.specs(query.optimizedPlan.collectWithSubqueries { case plan => plan.expressions }.flatten)
    Json.text(specs.flatMap(spec => CallPlanner.sampleOf(spec).map(columns => both(query, spec, columns.map(_.take(rows))))))
  }

  private def both(query: QueryExecution, spec: JsonNode, columns: Seq[Seq[String]]): Map[String, Any] = {
    val output = columns.map(_ => AttributeReference("argument", StringType)())
    val rows = columns.transpose.map(row => InternalRow.fromSeq(row.map(UTF8String.fromString)))
    val one = Repartition(1, shuffle = false, LocalRelation(output, rows))
    val answers = Seq(written(spec), unlimited(spec)).map(order => Alias(answer(order, output), "answer")())
    val found = run(query, Project(answers, one))
    def texts(i: Int) = found.map(row => if (row.isNullAt(i)) null else row.getUTF8String(i).toString)
    Map("spec" -> spec, "written" -> texts(0), "planned" -> texts(1))
  }

  private def answer(spec: JsonNode, arguments: Seq[Expression]): Expression = {
    val resultType = LlmCall.answered(DataType.fromJson(spec.get("result_type").toString))
    val value = GetStructField(BindLlmCalls.bound(spec.get("function").asText, Json.text(spec), resultType, arguments), 0)
    StructsToJson(Map.empty, CreateNamedStruct(Seq(Literal("v"), value)), Some("UTC"))
  }

  private def run(query: QueryExecution, plan: LogicalPlan): Seq[InternalRow] = {
    val execution = query.sparkSession.sessionState.executePlan(plan)
    SQLExecution.withNewExecutionId(execution, None)(execution.executedPlan.executeCollect()).toSeq
  }

  private def written(spec: JsonNode): ObjectNode = {
    val fixed = unlimited(spec)
    fixed.putNull("plan")
    fixed.get("options").asInstanceOf[ObjectNode].put("field_order", "fixed")
    fixed
  }

  /** Asked whatever budgets and error rates say: the rows are few, and their errors are counted. */
  private def unlimited(spec: JsonNode): ObjectNode = {
    val copy = spec.deepCopy[ObjectNode]()
    copy.putNull("log") // its known answers came as one more column
    val conf = copy.get("conf").asInstanceOf[ObjectNode]
    Seq("tokens", "cost").foreach(limit => conf.remove(s"spark.llm.budget.$limit"))
    conf.put("spark.llm.maxErrorRate", "1")
    copy.get("options").asInstanceOf[ObjectNode].put("on_error", "null")
    copy
  }
}
