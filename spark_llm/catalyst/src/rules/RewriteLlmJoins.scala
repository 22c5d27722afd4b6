package io.sparkllm.catalyst.rules

import io.sparkllm.catalyst.{LlmConf, LlmErrors}
import io.sparkllm.catalyst.functions.LlmCall

import org.apache.spark.sql.catalyst.expressions._
import org.apache.spark.sql.catalyst.optimizer.RewritePredicateSubquery
import org.apache.spark.sql.catalyst.plans._
import org.apache.spark.sql.catalyst.plans.logical._
import org.apache.spark.sql.catalyst.rules.Rule

/**
 * Outer, semi and anti joins whose condition asks about both sides, which Spark cannot run: the pairs of values that the
 * model approves are found through an inner join and become a plain join key.
 * {{{
 *   left JOIN right ON cheap AND llm(l, r)
 *     ->  left JOIN (right JOIN approved ON r <=> approved.r) ON cheap AND l <=> approved.l
 *         approved = distinct l, r of (left JOIN right ON cheap) WHERE llm(l, r)
 * }}}
 */
object RewriteLlmJoins extends Rule[LogicalPlan] with PredicateHelper {

  override def apply(plan: LogicalPlan): LogicalPlan =
    if (!LlmConf.optimizes || !Calls.under(plan)) plan
    else subqueriesAsJoins(plan).transformUp {
      case join @ Join(left, right, LeftOuter | LeftExistence(_), Some(condition), _) if asksBothSides(join) =>
        val (side, keys) = through(join, right, left)
        Project(join.output, join.copy(right = side, condition = Some(keys)))
      case join @ Join(left, right, RightOuter, Some(condition), _) if asksBothSides(join) =>
        val (side, keys) = through(join, left, right)
        Project(join.output, join.copy(left = side, condition = Some(keys)))
      case join: Join if join.joinType == FullOuter && asksBothSides(join) =>
        throw LlmErrors("LLM_UNSUPPORTED_PLACE", "function" -> asking(join).head.params.function,
          "place" -> "the condition of a FULL OUTER JOIN", "detail" -> "it compares both sides")
    }

  /** Spark rewrites EXISTS and IN later, into joins whose conditions would then hold unbound calls. */
  private def subqueriesAsJoins(plan: LogicalPlan): LogicalPlan = {
    val correlated = plan.exists(_.expressions.exists(_.exists {
      case subquery: SubqueryExpression => subquery.children.exists(Calls.in)
      case _ => false
    }))
    if (correlated) RewritePredicateSubquery(plan) else plan
  }

  private def asking(join: Join): Seq[LlmCall] = join.condition.toSeq.flatMap(_.collect { case call: LlmCall => call })

  private def asksBothSides(join: Join): Boolean = asking(join).exists { call =>
    !call.references.subsetOf(join.left.outputSet) && !call.references.subsetOf(join.right.outputSet)
  }

  /** `side` with the other side's approved values, and the condition that compares them. */
  private def through(join: Join, side: LogicalPlan, other: LogicalPlan): (LogicalPlan, Expression) = {
    val (asks, cheap) = splitConjunctivePredicates(join.condition.get).partition(Calls.in)
    val columns = AttributeSet(asks.flatMap(_.references)).toSeq
    refuse(join, columns)
    val values = columns.map(column => Alias(column, column.name)())
    val pairs = Join(join.left, join.right, Inner, cheap.reduceOption(And), JoinHint.NONE)
    val passing = asks.foldLeft[LogicalPlan](pairs)((plan, predicate) => Filter(predicate, plan))
    val approved = Aggregate(columns, values, passing)
    val (ofSide, ofOther) = columns.zip(values).partition { case (column, _) => side.outputSet.contains(column) }
    def same(keys: Seq[(Attribute, Alias)]) = keys.map { case (column, value) => EqualNullSafe(column, value.toAttribute) }
    (Join(side, approved, Inner, same(ofSide).reduceOption[Expression](And), JoinHint.NONE),
      (cheap ++ same(ofOther)).reduce[Expression](And))
  }

  private def refuse(join: Join, columns: Seq[Attribute]): Unit = {
    val function = asking(join).head.params.function
    val place = s"the condition of a ${join.joinType.sql} JOIN"
    if (join.isStreaming) throw LlmErrors("LLM_STREAMING_UNSUPPORTED", "function" -> function, "place" -> place)
    DedupGuards.unrepeatable(join).foreach { reason =>
      throw LlmErrors("LLM_UNSUPPORTED_PLACE", "function" -> function, "place" -> place, "detail" -> reason)
    }
    columns.find(column => !RowOrdering.isOrderable(column.dataType)).foreach { column =>
      throw LlmErrors("LLM_UNSUPPORTED_PLACE", "function" -> function, "place" -> place,
        "detail" -> s"column ${column.name} of type ${column.dataType.sql} cannot be compared")
    }
  }
}
