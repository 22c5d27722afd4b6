package io.sparkllm.catalyst.rules

import org.apache.spark.sql.catalyst.expressions._
import org.apache.spark.sql.catalyst.expressions.aggregate.Sum
import org.apache.spark.sql.catalyst.plans.logical.{CollectMetrics, LogicalPlan}

/** Counts rows and what calls cost while they pass; the query report reads the nodes by their names. */
object CallMetrics {
  val Prefix = "spark_llm_"
  private val Usage = Seq("prompt", "cached", "output", "calls", "known")

  /** A node over `answers`, the result columns of bound functions in `child`. */
  def over(ask: Ask, answers: Seq[Attribute], child: LogicalPlan): LogicalPlan = {
    val usage = Usage.zipWithIndex.map { case (name, i) =>
      sum(name, answers.map(answer => GetStructField(GetStructField(answer, 2, Some("usage")), i, Some(name))))
    }
    val errors = sum("errors", answers.map(answer =>
      If(IsNull(GetStructField(answer, 1, Some("error"))), Literal(0L), Literal(1L))))
    val tuples = sum("tuples", answers.map(_ => Literal(1L)))
    val rows = sum("rows", Seq(ask.rows.getOrElse(Literal(1L))))
    // Named by what is counted, so that equal subplans stay equal and their exchanges are reused.
    CollectMetrics(s"$Prefix${Integer.toHexString(child.semanticHash())}", Seq(rows, tuples, errors) ++ usage, child, 0L)
  }

  private def sum(name: String, parts: Seq[Expression]): NamedExpression = {
    val total = parts.map(part => Coalesce(Seq(part, Literal(0L)))).reduce[Expression](new Add(_, _))
    Alias(new Sum(total).toAggregateExpression(), name)()
  }
}
