package io.sparkllm.catalyst.rules

import io.sparkllm.catalyst.LlmConf
import io.sparkllm.catalyst.functions.LlmCall

import org.apache.spark.sql.catalyst.expressions._
import org.apache.spark.sql.catalyst.expressions.aggregate.AggregateExpression
import org.apache.spark.sql.catalyst.plans._
import org.apache.spark.sql.catalyst.plans.logical._
import org.apache.spark.sql.catalyst.rules.Rule

/**
 * Asks the model as late as filters allow: cheap predicates, join reductions and grouping act first, then one Filter for
 * each predicate that asks, in the order of the text.
 *
 * Where a join has no other key, comparisons of answers about either side stay in its condition: n calls, not n².
 *
 * Spark pushes predicates down as if all cost the same, and infers copies of them across join keys; this rule lifts those
 * that ask back up and drops the copies.
 */
object PlaceLlmFilters extends Rule[LogicalPlan] with PredicateHelper {

  /** A plan without the asking predicates at its top, and those predicates over its output. */
  private case class Lifted(plan: LogicalPlan, asking: Seq[Expression])

  override def apply(plan: LogicalPlan): LogicalPlan =
    if (!LlmConf.optimizes("place") || !Calls.under(plan)) plan
    else plan.transformUp {
      case Filter(condition, project @ Project(list, _)) if list.exists(Calls.in) => sink(condition, project)
      case filter: Filter => settle(filter, lift(filter))
      case join: Join => settle(join, lift(join))
      case aggregate: Aggregate if GroupResults.ask(aggregate) =>
        val project = GroupResults.split(aggregate)
        project.mapChildren(groups => settle(groups, liftOverGroups(groups.asInstanceOf[Aggregate])))
      case aggregate: Aggregate => settle(aggregate, liftOverGroups(aggregate))
    }

  /** Predicates on groups go below a projection that asks for them, if they do not need its answers. */
  private def sink(condition: Expression, project: Project): LogicalPlan = {
    val columns = AttributeMap(project.projectList.collect { case alias: Alias => alias.toAttribute -> alias.child })
    def inline(e: Expression) = e.transform { case a: Attribute => columns.getOrElse(a, a) }
    val (after, before) = splitConjunctivePredicates(condition).partition(predicate =>
      !predicate.deterministic || predicate.references.exists(a => columns.get(a).exists(e => Calls.in(e) || !e.deterministic)))
    val sunk = before.map(inline).reduceOption(And).fold(project.child) { predicate =>
      val filter = Filter(predicate, project.child)
      settle(filter, lift(filter))
    }
    val kept = project.copy(child = sunk)
    after.reduceOption(And).fold[LogicalPlan](kept) { predicate =>
      val filter = Filter(predicate, kept)
      settle(filter, lift(filter))
    }
  }

  private def settle(original: LogicalPlan, lifted: Lifted): LogicalPlan =
    if (lifted.asking.isEmpty) lifted.plan
    else keepOutput(lifted.asking.foldLeft(lifted.plan)((child, predicate) => Filter(predicate, child)), original.output)

  private def keepOutput(plan: LogicalPlan, output: Seq[Attribute]): LogicalPlan =
    if (plan.output == output) plan else Project(output, plan)

  private def lift(plan: LogicalPlan): Lifted = plan match {
    case Filter(condition, child) => liftFilter(condition, child)
    case Project(list, child) if list.forall(e => e.deterministic && !Calls.in(e)) => liftOverProject(list, child)
    case join: Join => liftJoin(join)
    case other => Lifted(other, Nil)
  }

  private def liftFilter(condition: Expression, child: LogicalPlan): Lifted = {
    val (asking, cheap) = splitConjunctivePredicates(condition).partition(Calls.in)
    // A non-deterministic predicate draws by position: the rows that reach it must stay the same.
    val below = if (cheap.forall(_.deterministic)) lift(child) else Lifted(child, Nil)
    Lifted(cheap.reduceOption(And).fold(below.plan)(Filter(_, below.plan)), below.asking ++ asking)
  }

  private def liftOverProject(list: Seq[NamedExpression], child: LogicalPlan): Lifted = {
    val below = lift(child)
    val computed = list.collect { case alias: Alias => alias.child.canonicalized -> alias.toAttribute }.toMap
    // Spark replaced the column by its expression when it pushed the predicate below; the column is what can be lifted.
    val asking = below.asking.map(_.transformDown {
      case e if computed.contains(e.canonicalized) => computed(e.canonicalized)
    })
    if (asking.isEmpty) Lifted(Project(list, child), Nil)
    else Lifted(Project(list ++ missing(asking, list.map(_.toAttribute)), below.plan), asking)
  }

  private def missing(asking: Seq[Expression], output: Seq[Attribute]): Seq[Attribute] =
    (AttributeSet(asking.flatMap(_.references)) -- AttributeSet(output)).toSeq

  private def liftJoin(join: Join): Lifted = join match {
    case Join(left, right, _: InnerLike, condition, hint) =>
      val (asking, cheap) = condition.toSeq.flatMap(splitConjunctivePredicates)
        .partition(predicate => Calls.in(predicate) && predicate.deterministic)
      val reduces = cheap.exists(isKey(_, left, right))
      val (labels, late) = asking.partition(predicate => classifies && !reduces && comparesSides(predicate, left, right))
      val (fromLeft, fromRight) = if (reduces) (liftDeterministic(left), liftDeterministic(right))
        else (Lifted(left, Nil), Lifted(right, Nil))
      val all = withoutCopies(fromLeft.asking, fromLeft.asking ++ fromRight.asking ++ late, cheap)
      val kept = (cheap ++ labels.map(askedBefore)).reduceOption(And)
      Lifted(Join(fromLeft.plan, fromRight.plan, join.joinType, kept, hint), all)
    case Join(left, right, LeftSemi | LeftAnti, Some(condition), hint) =>
      val fromLeft = liftDeterministic(left)
      val kept = dropCopies(right, fromLeft.asking, splitConjunctivePredicates(condition))
      Lifted(Join(fromLeft.plan, kept, join.joinType, Some(condition), hint), fromLeft.asking)
    case Join(left, right, LeftOuter, Some(condition), hint) =>
      val kept = dropCopies(right, lift(left).asking, splitConjunctivePredicates(condition))
      Lifted(Join(left, kept, LeftOuter, Some(condition), hint), Nil)
    case Join(left, right, RightOuter, Some(condition), hint) =>
      val kept = dropCopies(left, lift(right).asking, splitConjunctivePredicates(condition))
      Lifted(Join(kept, right, RightOuter, Some(condition), hint), Nil)
    case other => Lifted(other, Nil)
  }

  private def classifies = LlmConf.optimizes("joins")

  /** Whether a predicate compares answers about either side: asked below the join they are few, and may be its key. */
  private def comparesSides(predicate: Expression, left: LogicalPlan, right: LogicalPlan): Boolean = {
    val (ofLeft, ofRight) = (canEvaluate(predicate, left), canEvaluate(predicate, right))
    !ofLeft && !ofRight && predicate.collect { case call: LlmCall => call }.forall(call =>
      call.references.subsetOf(left.outputSet) || call.references.subsetOf(right.outputSet))
  }

  private def askedBefore(predicate: Expression): Expression = predicate.transform { case call: LlmCall =>
    call.withArguments(call.arguments, call.params.hinted(Seq("asked before the join, which compares the answers")))
  }

  private def liftDeterministic(plan: LogicalPlan): Lifted = {
    val lifted = lift(plan)
    if (lifted.asking.forall(_.deterministic)) lifted else Lifted(plan, Nil)
  }

  private def isKey(predicate: Expression, left: LogicalPlan, right: LogicalPlan): Boolean = predicate match {
    case Equality(a, b) => (canEvaluate(a, left) && canEvaluate(b, right)) || (canEvaluate(a, right) && canEvaluate(b, left))
    case _ => false
  }

  /** `right` without the predicates that hold already because `known` hold on the other side of equal keys. */
  private def dropCopies(side: LogicalPlan, known: Seq[Expression], condition: Seq[Expression]): LogicalPlan = {
    val lifted = lift(side)
    val kept = withoutCopies(known, known ++ lifted.asking, condition).drop(known.size)
    if (kept.size == lifted.asking.size) side else keepOutput(settle(side, lifted.copy(asking = kept)), side.output)
  }

  /** `predicates` (beginning with `known`) without those that equal an earlier one when equal keys are one column. */
  private def withoutCopies(
      known: Seq[Expression], predicates: Seq[Expression], condition: Seq[Expression]): Seq[Expression] = {
    val same = condition.collect { case EqualTo(a: Attribute, b: Attribute) => Seq(a, b).sortBy(_.exprId.id) }
    def representative(attribute: Attribute): Attribute =
      same.collectFirst { case Seq(first, second) if second.semanticEquals(attribute) => representative(first) }
        .getOrElse(attribute)
    def identity(predicate: Expression) = predicate.transform { case a: Attribute => representative(a) }.canonicalized
    predicates.zipWithIndex.collect {
      case (predicate, i) if i < known.size || !predicates.take(i).exists(identity(_) == identity(predicate)) => predicate
    }
  }

  private def asksForRows(aggregate: Aggregate): Boolean =
    aggregate.groupingExpressions.exists(Calls.in(_)) ||
      aggregate.aggregateExpressions.exists(_.exists(e => e.isInstanceOf[AggregateExpression] && Calls.in(e)))

  private def liftOverGroups(aggregate: Aggregate): Lifted = {
    val below = lift(aggregate.child)
    val keys = AttributeSet(aggregate.groupingExpressions.collect { case key: Attribute => key })
    // Lifting one of several predicates would let the others ask for rows that it drops.
    val liftable = below.asking.nonEmpty && keys.nonEmpty && !asksForRows(aggregate) &&
      below.asking.forall(predicate => predicate.deterministic && predicate.references.subsetOf(keys))
    if (!liftable) Lifted(aggregate, Nil)
    else {
      val list = aggregate.aggregateExpressions ++ missing(below.asking, aggregate.output)
      Lifted(aggregate.copy(aggregateExpressions = list, child = below.plan), below.asking)
    }
  }
}
