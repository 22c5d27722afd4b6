package io.sparkllm.catalyst.rules

import io.sparkllm.catalyst.LlmConf

import org.apache.spark.sql.catalyst.expressions.SortOrder
import org.apache.spark.sql.catalyst.plans._
import org.apache.spark.sql.catalyst.plans.logical._
import org.apache.spark.sql.catalyst.rules.Rule

/**
 * Puts an exchange between calls that are asked in place and a global sort: range partitioning reads its input twice,
 * once to sample it, and would ask twice.
 */
object ProtectLlmAnswers extends Rule[LogicalPlan] {

  override def apply(plan: LogicalPlan): LogicalPlan =
    if (!LlmConf.optimizes || !plan.exists(_.isInstanceOf[Ask])) plan
    else plan.transformUp {
      case sort @ Sort(_, true, child, _) if streamsAnswers(child) => sort.copy(child = exchange(child))
      case ranges @ RepartitionByExpression(order, child, _, _)
          if order.exists(_.isInstanceOf[SortOrder]) && streamsAnswers(child) => ranges.copy(child = exchange(child))
    }

  private def exchange(child: LogicalPlan): LogicalPlan = RepartitionByExpression(Nil, child, None, None)

  /** Whether answers reach the top of `plan` without an exchange that keeps them. */
  private def streamsAnswers(plan: LogicalPlan): Boolean = plan match {
    case _: Ask => true
    case Join(left, _, LeftOuter | LeftExistence(_), _, _) => streamsAnswers(left)
    case Join(_, right, RightOuter, _, _) => streamsAnswers(right)
    case Project(_, _) | Filter(_, _) | _: Join | _: Union | _: Generate | _: Expand => plan.children.exists(streamsAnswers)
    case Sort(_, false, child, _) => streamsAnswers(child)
    case _ => false
  }
}
