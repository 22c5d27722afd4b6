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
    if (enabled && metrics.nonEmpty) System.err.println(line(metrics, durationNanos / NanosPerSecond))
  }

  override def onFailure(function: String, execution: QueryExecution, failure: Exception): Unit = ()

  /** Calls are tuples that were sent; distinct calls are those that the engine answered itself. */
  private def line(metrics: Seq[Row], seconds: Double): String = {
    def total(name: String) = metrics.map(_.getAs[Any](name)).collect { case count: Long => count }.sum
    def known(count: Long) = if (count == 0) "" else s"$count from the result log, "
    f"spark-llm: ${total("rows")} rows, ${total("tuples")} calls, ${total("calls")} distinct calls, " +
      f"${total("prompt")} prompt tokens, ${total("cached")} cached, ${total("output")} output tokens, " +
      f"${total("errors")} errors, ${known(total("known"))}$seconds%.1f s"
  }
}
