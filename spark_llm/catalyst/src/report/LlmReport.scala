package io.sparkllm.catalyst.report

import scala.util.Try

import io.sparkllm.catalyst.planner.CallPlanner
import io.sparkllm.catalyst.rules.CallMetrics

import org.apache.spark.sql.Row
import org.apache.spark.sql.execution.QueryExecution
import org.apache.spark.sql.util.QueryExecutionListener

/** After each query that asked a model: what it took, what was expected, and both to the planner. */
class LlmReport extends QueryExecutionListener {
  private val NanosPerSecond = 1e9

  override def onSuccess(function: String, execution: QueryExecution, durationNanos: Long): Unit = {
    val metrics = execution.observedMetrics.collect { case (name, row) if name.startsWith(CallMetrics.Prefix) => row }.toSeq
    if (metrics.nonEmpty) report(execution, metrics, durationNanos / NanosPerSecond)
  }

  override def onFailure(function: String, execution: QueryExecution, failure: Exception): Unit = ()

  private def report(execution: QueryExecution, metrics: Seq[Row], seconds: Double): Unit = {
    def total(name: String) = metrics.map(_.getAs[Any](name)).collect { case count: Long => count.toDouble }.sum
    val specs = LlmExplain.specs(execution.optimizedPlan.collectWithSubqueries { case plan => plan.expressions }.flatten)
    val measured = Work(total("rows"), total("calls"), total("prompt"), total("cached"), total("output"), Some(seconds),
      cost(execution, total("prompt"), total("cached"), total("output")))
    if (execution.sparkSession.conf.get("spark.llm.report.enabled", "true").toBoolean) {
      System.err.println(line(total("tuples"), total("errors"), total("known"), measured))
      Work.expected(specs).foreach(expected => System.err.println(comparison(expected, measured)))
    }
    CallPlanner.record(execution.sparkSession, specs, Map("calls" -> measured.calls, "prompt" -> measured.prompt,
      "cached" -> measured.cached, "output" -> measured.output, "seconds" -> seconds))
  }

  /** Calls are tuples that were sent; distinct calls are those that the engine answered itself. */
  private def line(tuples: Double, errors: Double, known: Double, work: Work): String = {
    val logged = if (known == 0) "" else f"$known%.0f from the result log, "
    f"spark-llm: ${work.rows}%.0f rows, $tuples%.0f calls, ${work.calls}%.0f distinct calls, " +
      f"${work.prompt}%.0f prompt tokens, ${work.cached}%.0f cached, ${work.output}%.0f output tokens, " +
      f"$errors%.0f errors, $logged${work.seconds.getOrElse(0.0)}%.1f s" + work.cost.fold("")(cost => f", cost $cost%.6f")
  }

  private def comparison(expected: Work, measured: Work): String = {
    def off(before: Double, after: Double) = if (before > 0) f" (${100 * (after / before - 1)}%+.1f %%)" else ""
    f"spark-llm: expected ${expected.calls}%.0f distinct calls${off(expected.calls, measured.calls)}, " +
      f"${expected.prompt}%.0f prompt tokens${off(expected.prompt, measured.prompt)}, " +
      f"${100 * expected.hitRate}%.1f %% cached (measured ${100 * measured.hitRate}%.1f %%), " +
      f"${expected.output}%.0f output tokens${off(expected.output, measured.output)}" +
      expected.seconds.fold("")(seconds => f", $seconds%.1f s") + expected.cost.fold("")(cost => f", cost $cost%.6f")
  }

  private def cost(execution: QueryExecution, prompt: Double, cached: Double, output: Double): Option[Double] = {
    def price(name: String) = execution.sparkSession.conf.getOption(s"spark.llm.price.$name").flatMap(t => Try(t.toDouble).toOption)
    price("prompt").orElse(price("output")).map { _ =>
      val prices = (price("prompt").getOrElse(0.0), price("output").getOrElse(0.0))
      ((prompt - cached) * prices._1 + cached * price("cached").getOrElse(prices._1) + output * prices._2) / 1e6
    }
  }
}
