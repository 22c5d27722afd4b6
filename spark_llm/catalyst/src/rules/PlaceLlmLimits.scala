package io.sparkllm.catalyst.rules

import io.sparkllm.catalyst.LlmConf

import org.apache.spark.sql.catalyst.expressions._
import org.apache.spark.sql.catalyst.plans.logical._
import org.apache.spark.sql.catalyst.rules.Rule

/**
 * `LIMIT n` over a projection that asks becomes the projection over `LIMIT n`: exactly n rows are asked, also where the
 * query runs as a job over all partitions.
 */
object PlaceLlmLimits extends Rule[LogicalPlan] {

  override def apply(plan: LogicalPlan): LogicalPlan =
    if (!LlmConf.optimizes("place") || !Calls.under(plan)) plan
    else plan.transformUp {
      case limit @ (_: LocalLimit | _: GlobalLimit | _: Offset | _: Tail) =>
        pull(limit.children.head).fold(limit)(top => top.copy(child = limit.withNewChildren(Seq(top.child))))
    }

  /** `plan` with an asking projection at its top, lifted over projections and over a sort that needs no answer. */
  private def pull(plan: LogicalPlan): Option[Project] = plan match {
    case project @ Project(list, _) if list.exists(Calls.in) => Some(project)
    case Project(list, child) => pull(child).map(below => Project(list.map(inlineColumn(_, below)), below.child))
    case sort @ Sort(order, true, child, _) => pull(child).flatMap { below =>
      val keys = order.map(inline(_, below).asInstanceOf[SortOrder])
      Option.unless(keys.exists(key => Calls.in(key) || !key.deterministic))(
        below.copy(child = sort.copy(order = keys, child = below.child)))
    }
    case _ => None
  }

  private def inline(expression: Expression, below: Project): Expression = {
    val columns = AttributeMap(below.projectList.collect { case alias: Alias => alias.toAttribute -> alias.child })
    expression.transform { case a: Attribute => columns.getOrElse(a, a) }
  }

  private def inlineColumn(column: NamedExpression, below: Project): NamedExpression = inline(column, below) match {
    case named: NamedExpression => named
    case other => Alias(other, column.name)(exprId = column.exprId)
  }
}
