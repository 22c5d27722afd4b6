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
        pull(limit.children.head).fold(limit) { case Project(list, child) => Project(list, limit.withNewChildren(Seq(child))) }
    }

  /** The asking projection at the top, lifted over a sort that does not need its answers. */
  private def pull(plan: LogicalPlan): Option[Project] = plan match {
    case project @ Project(list, _) if list.exists(Calls.in) => Some(project)
    case sort @ Sort(order, true, Project(list, child), _) if list.exists(Calls.in) =>
      val columns = AttributeMap(list.collect { case alias: Alias => alias.toAttribute -> alias.child })
      val inlined = order.map(_.transform { case a: Attribute => columns.getOrElse(a, a) }.asInstanceOf[SortOrder])
      if (inlined.exists(o => Calls.in(o) || !o.deterministic)) None
      else Some(Project(list, sort.copy(order = inlined, child = child)))
    case _ => None
  }
}
