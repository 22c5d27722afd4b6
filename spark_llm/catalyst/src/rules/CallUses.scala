package io.sparkllm.catalyst.rules

import io.sparkllm.catalyst.functions.LlmCall

import org.apache.spark.sql.catalyst.expressions._

/** One use of a call, and the conditions under which its answer matters: all of them, in order of evaluation. */
final case class CallUse(call: LlmCall, path: Seq[Expression]) {

  /** Which rows need the answer; `None` = all. */
  def needed: Option[Expression] = path.reduceOption(And)
}

/**
 * Finds the calls of an expression, inner ones first, with the branches they stand in.
 *
 * Spark evaluates a Python function for every row before it looks at CASE, AND or OR. The conditions found here tell
 * which rows would have been asked by an evaluation that stops early.
 */
object CallUses extends PredicateHelper {

  def in(expression: Expression, path: Seq[Expression] = Nil): Seq[CallUse] = expression match {
    case e if !Calls.in(e) => Nil
    case call: LlmCall => call.arguments.flatMap(in(_, path)) :+ CallUse(call, path.filter(_.deterministic))
    case CaseWhen(branches, otherwise) => inBranches(branches, otherwise, path)
    case If(condition, yes, no) => inBranches(Seq(condition -> yes), Some(no), path)
    case Coalesce(children) => inOrder(children, path, IsNull(_))
    case and: And => inOrder(cheapFirst(splitConjunctivePredicates(and)), path, isNot(_, Literal.FalseLiteral))
    case or: Or => inOrder(cheapFirst(splitDisjunctivePredicates(or)), path, isNot(_, Literal.TrueLiteral))
    case other => other.children.flatMap(in(_, path))
  }

  private def cheapFirst(terms: Seq[Expression]): Seq[Expression] = {
    val (asking, cheap) = terms.partition(Calls.in)
    cheap ++ asking
  }

  /** `unless` gives the condition under which evaluation goes on after a term. */
  private def inOrder(terms: Seq[Expression], path: Seq[Expression], unless: Expression => Expression): Seq[CallUse] =
    terms.zipWithIndex.flatMap { case (term, i) => in(term, path ++ terms.take(i).map(unless)) }

  private def inBranches(
      branches: Seq[(Expression, Expression)], otherwise: Option[Expression], path: Seq[Expression]): Seq[CallUse] = {
    val conditions = branches.map(_._1)
    def untaken(before: Int) = path ++ conditions.take(before).map(isNot(_, Literal.TrueLiteral))
    branches.zipWithIndex.flatMap { case ((condition, value), i) =>
      in(condition, untaken(i)) ++ in(value, untaken(i) :+ condition)
    } ++ otherwise.toSeq.flatMap(in(_, untaken(conditions.size)))
  }

  private def isNot(term: Expression, value: Literal): Expression = Not(EqualNullSafe(term, value))
}
