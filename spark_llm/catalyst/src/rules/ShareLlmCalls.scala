package io.sparkllm.catalyst.rules

import io.sparkllm.catalyst.LlmConf
import io.sparkllm.catalyst.functions.LlmCall

import org.apache.spark.sql.catalyst.expressions._
import org.apache.spark.sql.catalyst.plans._
import org.apache.spark.sql.catalyst.plans.logical._
import org.apache.spark.sql.catalyst.rules.Rule

/**
 * Moves every call into an `Ask` below its operator, once for equal calls: an answer found below is carried up through
 * projections, filters, sorts and joins to all who need it.
 */
object ShareLlmCalls extends Rule[LogicalPlan] {

  override def apply(plan: LogicalPlan): LogicalPlan =
    if (!LlmConf.optimizes || !Calls.under(plan)) plan
    else new CallSharing(LlmConf.optimizes("share"), LlmConf.optimizes("place")).exact(plan)
}

/**
 * @param share whether equal calls are merged
 * @param guard whether rows whose branch is not taken are spared
 */
private class CallSharing(share: Boolean, guard: Boolean) {
  import CallSharing._

  /** A plan whose output begins with the original's, and the answers among its columns, by call. */
  private case class Answered(plan: LogicalPlan, answers: Map[Key, Attribute])

  /** The rewritten plan with exactly the original's output. */
  def exact(plan: LogicalPlan): LogicalPlan = {
    val rewritten = rewrite(plan, Nil).plan
    if (rewritten.output.map(_.exprId) == plan.output.map(_.exprId)) rewritten else Project(plan.output, rewritten)
  }

  /** `wanted`: calls over this plan's output that operators above would like to find answered. */
  private def rewrite(plan: LogicalPlan, wanted: Seq[LlmCall]): Answered = plan match {
    case p if !Calls.under(p) => Answered(p, Map.empty)
    case project: Project => rewriteProject(project, wanted)
    case aggregate: Aggregate if GroupResults.ask(aggregate) => rewrite(GroupResults.split(aggregate), wanted)
    case join: Join => rewriteJoin(join, wanted)
    case op @ (_: Filter | _: Sort | _: LocalLimit | _: GlobalLimit | _: Offset | _: RepartitionOperation | _: Window) =>
      ask(op, op.children.head, wanted)
    case op: UnaryNode if Calls.in(op) => Answered(ask(op, op.child, Nil).plan, Map.empty)
    case other => Answered(other.mapChildren(exact), Map.empty)
  }

  /** Answers the calls of `op` below it. */
  private def ask(op: LogicalPlan, child: LogicalPlan, wanted: Seq[LlmCall]): Answered = {
    val uses = op.expressions.flatMap(CallUses.in(_))
    val below = rewrite(child, uses.map(_.call) ++ wanted)
    val asked = answer(below, uses, wanted)
    val known = replacing(asked.answers)
    Answered(op.withNewChildren(Seq(asked.plan)).transformExpressionsDown(known), sharable(asked.answers))
  }

  private def rewriteProject(project: Project, wanted: Seq[LlmCall]): Answered = {
    val columns = AttributeMap(project.projectList.collect { case alias: Alias => alias.toAttribute -> alias.child })
    def inline(call: LlmCall) = call.transform { case a: Attribute => columns.getOrElse(a, a) }.asInstanceOf[LlmCall]
    val uses = project.projectList.flatMap(CallUses.in(_))
    val inlined = wanted.map(call => call -> inline(call))
    val below = rewrite(project.child, uses.map(_.call) ++ inlined.map(_._2))
    val asked = answer(below, uses, inlined.map(_._2))
    val list = project.projectList.map(_.transformDown(replacing(asked.answers)).asInstanceOf[NamedExpression])
    val carried = sharable(inlined.flatMap { case (call, below) =>
      asked.answers.get(key(below)).map(key(call) -> _)
    }.toMap)
    val passed = carried.values.toSeq.distinct.filterNot(a => list.exists(_.exprId == a.exprId))
    Answered(Project(list ++ passed, asked.plan), carried)
  }

  private def rewriteJoin(join: Join, wanted: Seq[LlmCall]): Answered = {
    val uses = join.condition.toSeq.flatMap(CallUses.in(_))
    val (ofLeft, rest) = uses.partition(_.call.references.subsetOf(join.left.outputSet))
    val ofRight = rest.filter(_.call.references.subsetOf(join.right.outputSet))
    val left = answerSide(join.left, ofLeft, wanted)
    val right = answerSide(join.right, ofRight, wanted)
    val replaced = join.condition.map(_.transformDown(replacing(left.answers ++ right.answers)))
    // Rows that an outer join fills with NULLs were not asked, so their side's answers are no answers above.
    val answers = join.joinType match {
      case _: InnerLike => left.answers ++ right.answers
      case RightOuter => right.answers
      case LeftOuter | LeftExistence(_) => left.answers
      case _ => Map.empty[Key, Attribute]
    }
    Answered(Join(left.plan, right.plan, join.joinType, replaced, join.hint), sharable(answers))
  }

  private def answerSide(side: LogicalPlan, uses: Seq[CallUse], wanted: Seq[LlmCall]): Answered = {
    val below = rewrite(side, uses.map(_.call) ++ wanted.filter(_.references.subsetOf(side.outputSet)))
    answer(below, uses.map(_.copy(path = Nil)), Nil)
  }

  /** Adds what is not answered yet: calls that need others' answers stand above them. */
  private def answer(below: Answered, uses: Seq[CallUse], wanted: Seq[LlmCall]): Answered = {
    val open = merged(uses.filterNot(use => below.answers.contains(key(use.call))), wanted)
    val (ready, later) = open.partition(use => inner(use).forall(below.answers.contains))
    if (open.isEmpty) below
    else {
      require(ready.nonEmpty, s"calls depend on one another: ${open.map(_.call)}")
      val known = replacing(below.answers)
      val aliases = ready.map { use =>
        val call = use.call.withArguments(use.call.arguments.map(_.transformDown(known)))
        Alias(Answer(call, use.needed.map(_.transformDown(known))), use.call.prettyName)()
      }
      val answers = below.answers ++ ready.map(use => key(use.call)).zip(aliases.map(_.toAttribute))
      answer(Answered(Ask(aliases, below.plan), answers), later, wanted)
    }
  }

  /** The calls whose answers the arguments and conditions of a use need. */
  private def inner(use: CallUse): Seq[Key] =
    (use.call.arguments ++ use.path).flatMap(CallUses.in(_)).map(inner => key(inner.call))

  /** Uses of the same call as one, needed where any of them needs it. */
  private def merged(uses: Seq[CallUse], wanted: Seq[LlmCall]): Seq[CallUse] = {
    val everywhere = wanted.map(key).toSet
    uses.map(use => key(use.call)).distinct.map { same =>
      val equal = uses.filter(use => key(use.call) == same)
      val always = !guard || everywhere(same) || equal.exists(_.path.isEmpty)
      CallUse(equal.head.call, if (always) Nil else Seq(equal.flatMap(_.needed).reduce(Or)))
    }
  }

  private def replacing(answers: Map[Key, Attribute]): PartialFunction[Expression, Expression] = {
    case call: LlmCall if answers.contains(key(call)) => answers(key(call))
  }

  private def key(call: LlmCall): Key =
    if (share && call.deterministic) Equal(call.canonicalized) else new Single(call)

  private def sharable(answers: Map[Key, Attribute]): Map[Key, Attribute] =
    answers.filterNot(_._1.isInstanceOf[Single])
}

private object CallSharing {

  /** What makes two calls one. */
  sealed trait Key
  final case class Equal(canonical: Expression) extends Key
  final class Single(val call: LlmCall) extends Key {
    override def equals(other: Any): Boolean = other match {
      case single: Single => single.call eq call
      case _ => false
    }
    override def hashCode: Int = System.identityHashCode(call)
  }
}
