package io.sparkllm.catalyst.report

import io.sparkllm.catalyst.rules.CallMetrics

import org.apache.spark.sql.Row
import org.apache.spark.sql.execution.QueryExecution
import org.apache.spark.sql.util.QueryExecutionListener

/** One line on stderr after each query that asked a model. */
class LlmReport extends QueryExecutionListener {
  private val NanosPerSecond = 1e9

  override def onSuccess(function: String, execution: QueryExecution, durationNanos: Long): Unit = {
    val metrics = execution.observedMetrics.collect { case (name, row) if name.startsWith(CallMetrics.Prefix) => row }.toSeq
    val enabled = execution.sparkSession.conf.get("spark.llm.report.enabled", "true").toBoolean
    if (enabled && metrics.exists(_.schema.fieldNames.contains("calls"))) {
      System.err.println(line(metrics, durationNanos / NanosPerSecond))
    }
  }

  override def onFailure(function: String, execution: QueryExecution, failure: Exception): Unit = ()

  /** `calls`: tuples that were sent; `distinct`: those the engine was paid for. */
  private def line(metrics: Seq[Row], seconds: Double): String = {
    def total(name: String) = metrics.filter(_.schema.fieldNames.contains(name)).map(_.getAs[Any](name)).collect {
      case count: Long => count
    }.sum
    val calls = total("tuples") + metrics.filter(_.schema.fieldNames.contains("calls"))
      .filter(_.schema.fieldNames.contains("rows")).map(_.getAs[Long]("rows")).sum
    f"spark-llm: ${total("rows")} rows, $calls calls, ${total("calls")} distinct calls, ${total("prompt")} prompt tokens, " +
      f"${total("cached")} cached, ${total("output")} output tokens, ${total("errors")} errors, $seconds%.1f s"
  }
}
