package io.sparkllm.catalyst.rules

import io.sparkllm.catalyst.functions.LlmCall

import org.apache.spark.sql.catalyst.expressions._
import org.apache.spark.sql.catalyst.plans.logical.{LogicalPlan, UnaryNode}

/**
 * Appends the answers of calls to its child's rows. Between `ShareLlmCalls` and `BindLlmCalls` every call stands in such
 * a node and nowhere else, so the rules between them need to look at one shape only.
 *
 * @param answers each a call, or `If(needed, call, NULL)` where only some rows need the answer
 * @param rows where the child holds distinct tuples of arguments: the column with each tuple's number of rows
 */
case class Ask(answers: Seq[Alias], child: LogicalPlan, rows: Option[Attribute] = None) extends UnaryNode {
  override def output: Seq[Attribute] = child.output ++ answers.map(_.toAttribute)
  override lazy val distinctKeys: Set[ExpressionSet] = child.distinctKeys
  override def producedAttributes: AttributeSet = AttributeSet(answers.map(_.toAttribute))
  override protected def withNewChildInternal(newChild: LogicalPlan): Ask = copy(child = newChild)

  def calls: Seq[LlmCall] = answers.map(Answer.call)

  /** Calls with the same arguments and condition, which are asked from one table of distinct tuples. */
  def apart: Seq[Ask] = answers.groupBy { answer =>
    (Answer.call(answer).arguments.map(_.canonicalized).toSet, Answer.needed(answer).map(_.canonicalized))
  }.values.toSeq.sortBy(_.head.exprId.id).map(same => copy(answers = same))

  /** The same answers, with every call replaced by one that asks the same. */
  def mapCalls(replace: LlmCall => LlmCall): Ask = copy(answers = answers.map { answer =>
    Alias(Answer(replace(Answer.call(answer)), Answer.needed(answer)), answer.name)(exprId = answer.exprId)
  })
}

/** The expression of an answer: a call and which rows need it. */
object Answer {
  def apply(call: LlmCall, needed: Option[Expression]): Expression =
    needed.fold[Expression](call)(If(_, call, Literal(null, call.dataType)))

  def call(answer: Alias): LlmCall = answer.child match {
    case If(_, call: LlmCall, _) => call
    case call => call.asInstanceOf[LlmCall]
  }

  /** The rows that need the answer; `None` = all. */
  def needed(answer: Alias): Option[Expression] = answer.child match {
    case If(condition, _: LlmCall, _) => Some(condition)
    case _ => None
  }
}

/** Where calls stand. */
object Calls {
  def in(expression: Expression): Boolean = expression.exists(_.isInstanceOf[LlmCall])

  def in(plan: LogicalPlan): Boolean = plan.expressions.exists(in)

  def under(plan: LogicalPlan): Boolean = plan.exists(in(_: LogicalPlan))
}
