package io.sparkllm.catalyst.rules

import io.sparkllm.catalyst.LlmConf
import io.sparkllm.catalyst.functions._

import org.apache.spark.sql.catalyst.expressions._
import org.apache.spark.sql.catalyst.plans.logical._
import org.apache.spark.sql.catalyst.rules.Rule
import org.apache.spark.sql.types.BooleanType

/**
 * Several predicates that ask become one call, whose executor part asks them by cost / (1 - selectivity), measured on
 * its first rows. Under a LIMIT that call, also of one predicate, stops once enough rows have passed:
 * {{{
 *   LIMIT n (a AND b AND cheap)              ->  LIMIT n (conjunction(a, b) stop after n (cheap))
 *   LIMIT n (ORDER BY k (a AND cheap))       ->  LIMIT n (ORDER BY k (a stop after n (sorted by k, one task (cheap))))
 * }}}
 * Rows that are not asked have the value NULL, which the filter drops.
 */
object OrderLlmPredicates extends Rule[LogicalPlan] {

  override def apply(plan: LogicalPlan): LogicalPlan =
    if (!LlmConf.optimizes || !Calls.under(plan)) plan
    else new Conjunctions(plan, LlmConf.optimizes("predicates"), LlmConf.optimizes("limits")).rewrite(plan, None)
}

/**
 * @param whole the plan, to see whether an answer is used elsewhere too
 * @param several whether predicates are asked together
 * @param early whether a LIMIT stops them
 */
private class Conjunctions(whole: LogicalPlan, several: Boolean, early: Boolean) extends PredicateHelper {

  import Conjunctions.Wanted

  /** A predicate that can be a term, or why it cannot. */
  private case class Candidate(predicate: Expression, term: Either[String, AnswerTest])

  private val calls = whole.collectWithSubqueries { case plan => plan.expressions.flatMap(callsIn) }.flatten

  def rewrite(plan: LogicalPlan, wanted: Option[Wanted]): LogicalPlan = plan match {
    case other if !Calls.under(other) => other
    case limit @ LocalLimit(IntegerLiteral(n), child) if early && n > 0 => limit.copy(child = rewrite(child, Some(Wanted(n))))
    case project @ Project(list, child) if list.forall(e => e.deterministic && !Calls.in(e)) =>
      project.copy(child = rewrite(child, wanted.map(below(list, _))))
    case sort @ Sort(order, true, child, _) if wanted.exists(_.order.isEmpty) =>
      sort.copy(child = rewrite(child, wanted.map(_.copy(order = order))))
    case filter: Filter => conjunction(filter, wanted.filter(_.order.forall(key => key.deterministic && !Calls.in(key))))
    case other => other.mapChildren(rewrite(_, None))
  }

  private def below(list: Seq[NamedExpression], wanted: Wanted): Wanted = {
    val columns = AttributeMap(list.collect { case alias: Alias => alias.toAttribute -> alias.child })
    wanted.copy(order = wanted.order.map(_.transform { case a: Attribute => columns.getOrElse(a, a) }.asInstanceOf[SortOrder]))
  }

  private def conjunction(filter: Filter, wanted: Option[Wanted]): LogicalPlan = {
    val (predicates, bottom) = stacked(filter)
    val base = rewrite(bottom, None)
    val (asking, cheap) = predicates.partition(Calls.in)
    val placed = LlmConf.optimizes("place") || cheap.isEmpty
    val candidates = asking.map(predicate => Candidate(predicate, term(predicate, predicates)))
    val together = if (placed && predicates.forall(_.deterministic)) merged(candidates, wanted) else Nil
    val useful = together.size > 1 || (together.nonEmpty && wanted.nonEmpty)
    val tests = if (useful) together.flatMap(_.term.toOption) else Nil
    val others = if (useful) candidates.filterNot(together.contains) else candidates
    val stop = wanted.filter(_ => useful && others.isEmpty)
    if (tests.isEmpty) hinted(filter, candidates, wanted).withNewChildren(Seq(rewrite(filter.child, None)))
    else {
      val low = cheap.reduceOption(And).fold(base)(Filter(_, base))
      val ordered = stop.filter(_.order.nonEmpty).fold(low)(by => Sort(by.order, global = false, Repartition(1, shuffle = true, low)))
      val asked: LogicalPlan = Filter(Conjunctions.call(AnswerTest.merged(tests), stop.map(_.rows), reasons(tests, stop)), ordered)
      others.foldLeft(asked)((plan, other) => hinted(Filter(other.predicate, plan), Seq(other), wanted))
    }
  }

  /** The conjuncts of filters on top of one another, in the order in which they act, and what they stand on. */
  private def stacked(plan: LogicalPlan): (Seq[Expression], LogicalPlan) = plan match {
    case Filter(condition, child) =>
      val (below, base) = stacked(child)
      (below ++ splitConjunctivePredicates(condition), base)
    case base => (Nil, base)
  }

  private def term(predicate: Expression, stack: Seq[Expression]): Either[String, AnswerTest] =
    AnswerTest.of(predicate).filterOrElse(
      test => calls.count(sameQuestion(test.call)) == stack.flatMap(callsIn).count(sameQuestion(test.call)),
      "its answer is used elsewhere too")

  private def callsIn(expression: Expression): Seq[LlmCall] = expression.collect { case call: LlmCall => call }

  private def sameQuestion(call: LlmCall)(other: LlmCall): Boolean = call.params.copy(hints = CallHints()) == other.params.copy(hints = CallHints())

  /**
   * The candidates that may be asked together. Where answers are not remembered for the whole query, each must be asked
   * about the same tuples: what is distinct for one is then distinct for all.
   */
  private def merged(candidates: Seq[Candidate], wanted: Option[Wanted]): Seq[Candidate] = {
    val able = candidates.filter(_.term.isRight)
    val remembered = LlmConf.text("placement") == "worker"
    val chosen = if (wanted.nonEmpty || remembered || able.isEmpty) able
      else able.groupBy(c => ExpressionSet(c.term.toOption.get.call.arguments)).values.maxBy(_.size)
    val kept = able.filter(chosen.contains)
    if (several || AnswerTest.merged(kept.flatMap(_.term.toOption)).size < 2) kept else Nil
  }

  private def reasons(tests: Seq[AnswerTest], stop: Option[Wanted]): Seq[String] =
    Option.when(AnswerTest.merged(tests).size > 1)(
      "predicates asked together, by cost / (1 - selectivity) of the first rows").toSeq ++
      stop.map(wanted => s"asks in growing batches until ${wanted.rows} rows of a task have passed")

  /** A filter left as it is, whose calls know what the LIMIT above wants and why no more was done. */
  private def hinted(filter: Filter, candidates: Seq[Candidate], wanted: Option[Wanted]): Filter = {
    val why = candidates.flatMap(_.term.left.toOption).distinct
    val early = wanted.filter(_.order.isEmpty).map(_.rows)
    val reasons = why.map(reason => s"predicates in the order of the text: $reason").filter(_ => candidates.size > 1 || several) ++
      wanted.toSeq.flatMap(_ => why.map(reason => s"no early stop: $reason"))
    if (reasons.isEmpty && early.isEmpty) filter
    else filter.copy(condition = filter.condition.transform {
      case call: LlmCall => call.withArguments(call.arguments, call.params.hinted(reasons, early))
    })
  }
}

private object Conjunctions {

  /** Rows that a LIMIT above wants, the first by `order` if there is one. */
  case class Wanted(rows: Int, order: Seq[SortOrder] = Nil)

  /** The call that is true where all of `tests` pass. */
  def call(tests: Seq[AnswerTest], stopAfter: Option[Int], reasons: Seq[String]): LlmCall = {
    val arguments = tests.flatMap(test => test.call.arguments.zip(test.call.params.fields))
    val columns = arguments.distinctBy(_._1.canonicalized)
    val place = columns.map(_._1.canonicalized).zipWithIndex.toMap
    val names = columns.map(_._2.name).zipWithIndex.map { case (name, i) =>
      val earlier = columns.take(i).count(_._2.name == name)
      if (earlier == 0) name else s"$name (${earlier + 1})"
    }
    val fields = columns.zip(names).map { case ((_, field), name) =>
      CallField(FieldRole, name, if (field.kind == "prompt") "text" else field.kind)
    }
    val terms = tests.map(t => Term(t.call.params, t.call.arguments.map(a => place(a.canonicalized)), t.tests))
    val params = CallParams("llm_filter", "", Map.empty, BooleanType, fields, terms = terms, stopAfter = stopAfter)
    LlmCall.of(columns.map(_._1), params.hinted(reasons))
  }
}
