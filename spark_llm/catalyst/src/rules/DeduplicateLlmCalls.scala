package io.sparkllm.catalyst.rules

import io.sparkllm.catalyst.{Json, LlmConf, LlmErrors}
import io.sparkllm.catalyst.functions.LlmCall
import io.sparkllm.catalyst.planner.{CallPlanner, KeyRange}
import io.sparkllm.catalyst.python.CallSpec

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
 *
 * Where hardly a row repeats another's arguments, the rows themselves are arranged and asked: equal ones meet in one
 * task, which asks once.
 */
case class DeduplicateLlmCalls(session: SparkSession) extends Rule[LogicalPlan] {

  override def apply(plan: LogicalPlan): LogicalPlan =
    plan.collect { case ask: Ask => ask }.size match {
      case 0 => plan
      case asks => rewrite(plan, Place(stopsEarly = false, readTwice = false, alone = asks == 1))
    }

  /**
   * @param stopsEarly an operator above may need only the first rows
   * @param readTwice an `Ask` above will read its input twice
   * @param alone no other `Ask` is in the plan, whose answers it might share
   */
  private case class Place(stopsEarly: Boolean, readTwice: Boolean, alone: Boolean)

  private def rewrite(plan: LogicalPlan, place: Place): LogicalPlan = {
    val early = plan match {
      case _: LocalLimit | _: GlobalLimit | _: Tail => true
      case _: Project | _: Filter | _: Offset | _: Ask | _: Join | _: Union | _: Generate => place.stopsEarly
      case _ => false
    }
    val below = place.copy(stopsEarly = early, readTwice = place.readTwice || plan.isInstanceOf[Ask])
    (plan, plan.mapChildren(rewrite(_, below))) match {
      case (original: Ask, ask: Ask) => deduplicate(original, ask, place)
      case (_, other) => other
    }
  }

  /** `original`: the `Ask` as it was before calls below were rewritten. */
  private def deduplicate(original: Ask, ask: Ask, place: Place): LogicalPlan = {
    def planned(calls: Ask) = CallPlanner(session)(calls, original.child)
    if (!LlmConf.optimizes("deduplicate")) {
      said(planned(ask), "not deduplicated: spark.llm.optimize.deduplicate.enabled is false")
    } else DedupGuards.reasonAgainst(ask, place.stopsEarly) match {
      case Some(reason) => said(planned(ask), s"not deduplicated: $reason")
      case None if !place.readTwice && DedupGuards.alreadyDistinct(ask) =>
        arranged(said(planned(ask), "not deduplicated: the arguments are distinct"))
      case None => original.apart.map(planned) match {
        case Seq(only) if place.alone && CallPlanner.mostlyDistinct(only) =>
          inPlace(said(only.copy(child = ask.child), "not deduplicated: most arguments are distinct; equal ones are asked together"))
        case groups => groups.foldLeft(ask.child)((plan, same) => joinAnswers(plan, said(same, "deduplicated")))
      }
    }
  }

  private def said(ask: Ask, reason: String): Ask = ask.mapCalls { call =>
    val plan = call.params.plan.map(plan => plan.copy(reasons = reason +: plan.reasons))
    call.copy(params = call.params.copy(plan = plan))
  }

  /** The rows of `ask`, equal ones in one task. */
  private def inPlace(ask: Ask): LogicalPlan = {
    val computed = ask.calls.head.arguments.distinctBy(_.canonicalized).collect {
      case argument if !argument.isInstanceOf[Attribute] => Alias(argument, "argument")()
    }
    val rows = Project(ask.child.output ++ computed, ask.child)
    Project(ask.output, arranged(Ask(ask.mapCalls(overColumns(_, computed)).answers, rows), anywhere = false))
  }

  /** `plan` with the answers of `ask`, whose calls have the same arguments. */
  private def joinAnswers(plan: LogicalPlan, ask: Ask): LogicalPlan = {
    val arguments = ask.calls.head.arguments.distinctBy(_.canonicalized)
    val columns = arguments.map(argument => Alias(argument, "argument")())
    val rows = Alias(Count(Literal(1)).toAggregateExpression(), "rows")()
    val answers = ask.calls.map(call => Alias(overColumns(call, columns), call.prettyName)())
    val asked = arranged(Ask(answers, distinct(ask, columns, rows), Some(rows.toAttribute)))
    // One column for all answers: wherever some are needed, the tables of answers stay equal and are computed once.
    val packed = Alias(CreateNamedStruct(answers.flatMap(a => Seq(Literal(a.name), a.toAttribute))), "answers")()
    val right = Project(columns.map(_.toAttribute) :+ packed, asked)
    // Computed before the join: Spark loses conditions with Python functions that have no argument.
    val computed = arguments.map {
      case attribute: Attribute => attribute
      case other => Alias(other, "argument")()
    }
    val left = Project(plan.output ++ computed.collect { case alias: Alias => alias }, plan)
    val same = computed.zip(columns).map { case (a, column) => EqualNullSafe(a.toAttribute, column.toAttribute) }
    val hint = JoinHint(None, Option.when(CallPlanner.isSmall(ask))(HintInfo(Some(BROADCAST))))
    val joined = Join(left, right, LeftOuter, same.reduceOption[Expression](And), hint)
    Project(plan.output ++ ask.answers.zipWithIndex.map { case (answer, i) =>
      val missing = Answer.needed(answer).foldLeft[Expression](IsNull(packed.toAttribute))(And(_, _))
      val value = If(missing, childChanged(Answer.call(answer)), GetStructField(packed.toAttribute, i))
      Alias(value, answer.name)(exprId = answer.exprId)
    }, joined)
  }

  private def distinct(ask: Ask, columns: Seq[Alias], rows: Alias): LogicalPlan = {
    val needed = Answer.needed(ask.answers.head)
    val pruned = PruneAsks(ask.child, AttributeSet((columns ++ needed).flatMap(_.references)))
    val source = rewrite(pruned, Place(stopsEarly = false, readTwice = true, alone = false))
    val tuples = Aggregate(columns.map(_.child), columns :+ rows, needed.fold(source)(Filter(_, source)))
    // Without any argument the aggregate has a row even for no input.
    if (columns.isEmpty) Filter(GreaterThan(rows.toAttribute, Literal(0L)), tuples) else tuples
  }

  private def overColumns(call: LlmCall, columns: Seq[Alias]): LlmCall = {
    val attributes = columns.map(column => column.child.canonicalized -> column.toAttribute).toMap
    call.withArguments(call.arguments.map(argument => attributes.getOrElse(argument.canonicalized, argument)))
  }

  /**
   * Rows in the planned field order, in as many tasks as shall ask at once. Partitioned by the leading fields, so that a
   * prefix group is asked on one host. On one host whose cache holds all prefixes, any order and any task will do.
   *
   * @param anywhere equal rows need not meet
   */
  private def arranged(ask: Ask, anywhere: Boolean = true): Ask = {
    val call = ask.calls.head
    val (fields, estimate) = call.params.plan.fold((call.arguments.indices: Seq[Int], Map.empty[String, Double]))(plan => (plan.order, plan.estimate))
    val order = fields.map(call.arguments(_)).map(SortOrder(_, Ascending))
    val anyOrder = anywhere && estimate.get("row_order").contains(0.0) && CallPlanner.hosts(session) == 1
    if (order.isEmpty || anyOrder) ask
    else {
      val leading = fields.take(estimate.get("partition_fields").fold(order.size)(_.toInt))
      val ranges = RepartitionByExpression(ranged(call, leading), ask.child, Some(CallPlanner.tasks(session)), None)
      ask.copy(child = if (LlmConf.optimizes("order")) Sort(order, global = false, ranges) else ranges)
    }
  }

  /** Ranges of the `leading` arguments: by the sample, or else Spark finds them. */
  private def ranged(call: LlmCall, leading: Seq[Int]): Seq[Expression] = {
    val keys = leading.map(call.arguments(_))
    CallPlanner.sampleOf(Json.of(CallSpec.of(call))).filter(_.exists(_.nonEmpty)) match {
      case Some(sample) => Seq(KeyRange(keys, leading.map(sample(_)), CallPlanner.tasks(session)))
      case None => keys.map(SortOrder(_, Ascending))
    }
  }

  private def childChanged(call: LlmCall): Expression = {
    val text = LlmErrors.text("LLM_CHILD_CHANGED", "function" -> call.params.function)
    val parameters = CreateMap(Seq(Literal(LlmErrors.PassthroughParameter), Literal(text)))
    RaiseError(Literal(LlmErrors.Passthrough), parameters, call.dataType)
  }
}
