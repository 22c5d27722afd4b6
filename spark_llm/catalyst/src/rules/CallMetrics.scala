package io.sparkllm.catalyst.rules

import org.apache.spark.sql.catalyst.expressions._
import org.apache.spark.sql.catalyst.expressions.aggregate.{Count, Sum}
import org.apache.spark.sql.catalyst.plans.logical.{CollectMetrics, LogicalPlan}

/** Counts what calls cost while their answers pass; the query report reads it by name. */
object CallMetrics {
  val Prefix = "spark_llm_"
  private val Usage = Seq("prompt", "cached", "output", "calls")

  /** A node over `answers`, the result columns of bound functions in `child`. */
  def over(answers: Seq[Attribute], child: LogicalPlan): LogicalPlan = {
    val usage = Usage.zipWithIndex.map { case (name, i) =>
      sum(name, answers.map(answer => GetStructField(GetStructField(answer, 2, Some("usage")), i, Some(name))))
    }
    val errors = sum("errors", answers.map(answer =>
      If(IsNull(GetStructField(answer, 1, Some("error"))), Literal(0L), Literal(1L))))
    val rows = Alias(Count(Literal(1)).toAggregateExpression(), "rows")()
    // Named by what is asked of what, so that equal subplans stay equal and their exchanges are reused.
    CollectMetrics(s"$Prefix${Integer.toHexString(child.semanticHash())}", rows +: errors +: usage, child, 0L)
  }

  private def sum(name: String, parts: Seq[Expression]): NamedExpression =
    Alias(new Sum(parts.map(part => Coalesce(Seq(part, Literal(0L)))).reduce[Expression](Add(_, _)))
      .toAggregateExpression(), name)()
}
