package io.sparkllm.catalyst.rules

import io.sparkllm.catalyst.{LlmConf, LlmErrors}
import io.sparkllm.catalyst.functions.LlmCall
import io.sparkllm.catalyst.planner.CallPlanner

import org.apache.spark.sql.SparkSession
import org.apache.spark.sql.catalyst.expressions._
import org.apache.spark.sql.catalyst.expressions.aggregate.Count
import org.apache.spark.sql.catalyst.plans.LeftOuter
import org.apache.spark.sql.catalyst.plans.logical._
import org.apache.spark.sql.catalyst.rules.Rule

/**
 * Asks each distinct tuple of arguments once, cluster-wide:
 * {{{
 *   input LEFT JOIN (distinct arguments -> range partitions, sorted -> Ask) ON arguments <=> arguments
 * }}}
 * The sort brings rows that share a prompt prefix together, the range partitions give the engine many tasks, and the
 * join's exchange keeps a sort above from asking a second time while it samples.
 */
case class DeduplicateLlmCalls(session: SparkSession) extends Rule[LogicalPlan] {

  override def apply(plan: LogicalPlan): LogicalPlan =
    if (plan.exists(_.isInstanceOf[Ask])) rewrite(plan, stopsEarly = false) else plan

  /** `stopsEarly`: an operator above may need only the first rows. */
  private def rewrite(plan: LogicalPlan, stopsEarly: Boolean): LogicalPlan = {
    val early = plan match {
      case _: LocalLimit | _: GlobalLimit | _: Tail => true
      case _: Project | _: Filter | _: Offset | _: Ask | _: Join | _: Union | _: Generate => stopsEarly
      case _ => false
    }
    (plan, plan.mapChildren(rewrite(_, early))) match {
      case (Ask(_, input, _), ask: Ask) => deduplicate(ask, input, stopsEarly)
      case (_, other) => other
    }
  }

  /** `input`: the child of `ask` as it was before calls below were rewritten. */
  private def deduplicate(ask: Ask, input: LogicalPlan, stopsEarly: Boolean): LogicalPlan = {
    def planned(calls: Ask, reason: String) = CallPlanner(session)(calls, input, reason)
    if (!LlmConf.optimizes("deduplicate")) planned(ask, "not deduplicated: spark.llm.optimize.deduplicate.enabled is false")
    else DedupGuards.reasonAgainst(ask, stopsEarly) match {
      case Some(reason) => planned(ask, s"not deduplicated: $reason")
      case None if DedupGuards.alreadyDistinct(ask) => arranged(planned(ask, "not deduplicated: the arguments are distinct"))
      case None => apart(ask).foldLeft(ask.child)((plan, same) => joinAnswers(plan, planned(same, "deduplicated")))
    }
  }

  /** Calls with the same arguments and condition are asked from one table of distinct tuples. */
  private def apart(ask: Ask): Seq[Ask] = ask.answers.groupBy { answer =>
    (Answer.call(answer).arguments.map(_.canonicalized).toSet, Answer.needed(answer).map(_.canonicalized))
  }.values.toSeq.sortBy(_.head.exprId.id).map(answers => ask.copy(answers = answers))

  /** `plan` (the child of `ask`, perhaps with more columns) with the answers of `ask`, all over the same arguments. */
  private def joinAnswers(plan: LogicalPlan, ask: Ask): LogicalPlan = {
    val arguments = ask.calls.head.arguments.distinctBy(_.canonicalized)
    val columns = arguments.map(argument => Alias(argument, "argument")())
    val rows = Alias(Count(Literal(1)).toAggregateExpression(), "rows")()
    val answers = ask.calls.map(call => Alias(overColumns(call, columns), call.prettyName)())
    val asked = arranged(Ask(answers, distinct(ask, columns, rows), Some(rows.toAttribute)))
    val marker = Alias(Literal.TrueLiteral, "asked")()
    val right = Project((columns ++ answers).map(_.toAttribute) :+ marker, asked)
    val same = arguments.zip(columns).map { case (argument, column) => EqualNullSafe(argument, column.toAttribute) }
    val hint = JoinHint(None, Option.when(CallPlanner.isSmall(ask))(HintInfo(Some(BROADCAST))))
    val joined = Join(plan, right, LeftOuter, same.reduceOption[Expression](And), hint)
    Project(plan.output ++ ask.answers.zip(asked.answers).map { case (original, answer) =>
      val missing = Answer.needed(original).foldLeft[Expression](IsNull(marker.toAttribute))(And(_, _))
      Alias(If(missing, childChanged(Answer.call(original)), answer.toAttribute), original.name)(exprId = original.exprId)
    }, joined)
  }

  private def distinct(ask: Ask, columns: Seq[Alias], rows: Alias): LogicalPlan = {
    val input = Answer.needed(ask.answers.head).fold(ask.child)(Filter(_, ask.child))
    val tuples = Aggregate(columns.map(_.child), columns :+ rows, input)
    // Without any argument the aggregate has a row even for no input.
    if (columns.isEmpty) Filter(GreaterThan(rows.toAttribute, Literal(0L)), tuples) else tuples
  }

  private def overColumns(call: LlmCall, columns: Seq[Alias]): LlmCall = {
    val attributes = columns.map(column => column.child.canonicalized -> column.toAttribute).toMap
    call.withArguments(call.arguments.map(argument => attributes(argument.canonicalized)))
  }

  /** Rows in the planned field order, in as many tasks as shall ask at once. */
  private def arranged(ask: Ask): Ask = {
    val call = ask.calls.head
    val fields = call.params.plan.fold(call.arguments.indices: Seq[Int])(_.order).map(call.arguments(_))
    val order = fields.map(SortOrder(_, Ascending))
    if (order.isEmpty) ask
    else {
      val ranges = RepartitionByExpression(order, ask.child, Some(tasks), None)
      ask.copy(child = if (LlmConf.optimizes("order")) Sort(order, global = false, ranges) else ranges)
    }
  }

  private def tasks: Int = LlmConf.integer("partitions") match {
    case 0 => 2 * session.sparkContext.defaultParallelism
    case n => n
  }

  private def childChanged(call: LlmCall): Expression = {
    val text = LlmErrors.text("LLM_CHILD_CHANGED", "function" -> call.params.function)
    val parameters = CreateMap(Seq(Literal(LlmErrors.PassthroughParameter), Literal(text)))
    RaiseError(Literal(LlmErrors.Passthrough), parameters, call.dataType)
  }
}
