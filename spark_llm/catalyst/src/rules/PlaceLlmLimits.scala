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
        pull(limit.children.head).fold(limit) { top =>
          top.lists.foldRight(limit.withNewChildren(Seq(top.base)))(Project(_, _))
        }
    }

  /** Projections at the top of a plan, outermost first, of which the innermost asks; and what they stand on. */
  private case class Top(lists: List[Seq[NamedExpression]], base: LogicalPlan)

  /** The projections that a limit may act before, also those below a sort that needs none of their answers. */
  private def pull(plan: LogicalPlan): Option[Top] = plan match {
    case Project(list, child) if list.exists(Calls.in) => Some(Top(List(list), child))
    case Project(list, child) => pull(child).map(top => top.copy(lists = list :: top.lists))
    case sort @ Sort(order, true, child, _) => pull(child).flatMap { top =>
      val keys = top.lists.foldLeft(order)((keys, list) => keys.map(inline(_, list)))
      Option.unless(keys.exists(key => Calls.in(key) || !key.deterministic))(
        top.copy(base = sort.copy(order = keys, child = top.base)))
    }
    case _ => None
  }

  private def inline(key: SortOrder, list: Seq[NamedExpression]): SortOrder = {
    val columns = AttributeMap(list.collect { case alias: Alias => alias.toAttribute -> alias.child })
    key.transform { case a: Attribute => columns.getOrElse(a, a) }.asInstanceOf[SortOrder]
  }
}
