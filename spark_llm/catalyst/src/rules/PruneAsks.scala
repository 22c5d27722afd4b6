package io.sparkllm.catalyst.rules

import org.apache.spark.sql.catalyst.expressions.AttributeSet
import org.apache.spark.sql.catalyst.plans.logical._

/** Drops the asks below a plan whose answers nobody needs; Spark's own pruning sees them too late, as joins. */
object PruneAsks {

  /** `plan` with at least the columns `needed`. */
  def apply(plan: LogicalPlan, needed: AttributeSet): LogicalPlan = plan match {
    case Project(list, child) =>
      val kept = list.filter(column => needed.contains(column.toAttribute))
      Project(kept, apply(child, AttributeSet(kept.flatMap(_.references))))
    case Filter(condition, child) => Filter(condition, apply(child, needed ++ condition.references))
    case ask: Ask =>
      // Kept by whole tables of answers, so that these stay equal wherever they are needed.
      val kept = ask.apart.filter(_.answers.exists(answer => needed.contains(answer.toAttribute))).flatMap(_.answers)
      val child = apply(ask.child, needed ++ AttributeSet(kept.flatMap(_.references)))
      if (kept.isEmpty) child else ask.copy(answers = kept, child = child)
    case other => other
  }
}
