package io.sparkllm.catalyst.rules

import io.sparkllm.catalyst.functions.LlmCall

import org.apache.spark.sql.catalyst.expressions._
import org.apache.spark.sql.types._
import org.apache.spark.unsafe.types.UTF8String

/** Predicates that only compare one call's answer with constants, so that the executor can judge it; all must hold. */
final case class AnswerTest(call: LlmCall, tests: Seq[(String, Seq[Any])])

object AnswerTest {
  private val Comparable = Set[DataType](StringType, BooleanType)
  private val Integers = Set[DataType](ByteType, ShortType, IntegerType, LongType)

  /** The test that `predicate` makes, or why it is none. */
  def of(predicate: Expression): Either[String, AnswerTest] =
    read(predicate).toRight("not a comparison of one answer with constants").filterOrElse(
      test => usable(test.call), "its call is sampled, nested, reports errors or has no field")

  /** One test for each call. */
  def merged(tests: Seq[AnswerTest]): Seq[AnswerTest] =
    tests.map(_.call.canonicalized).distinct.map { call =>
      val same = tests.filter(_.call.canonicalized == call)
      AnswerTest(same.head.call, same.flatMap(_.tests).distinct)
    }

  private def usable(call: LlmCall): Boolean =
    call.deterministic && !call.params.reportsErrors && call.arguments.nonEmpty && !call.arguments.exists(Calls.in(_))

  private def read(predicate: Expression): Option[AnswerTest] = predicate match {
    case call: LlmCall if call.dataType == BooleanType => Some(AnswerTest(call, Seq("in" -> Seq(true))))
    case Not(call: LlmCall) => Some(AnswerTest(call, Seq("in" -> Seq(false))))
    case IsNotNull(call: LlmCall) => Some(AnswerTest(call, Seq("not null" -> Nil)))
    case EqualTo(call: LlmCall, value: Literal) => test(call, "in", Seq(value))
    case EqualTo(value: Literal, call: LlmCall) => test(call, "in", Seq(value))
    case In(call: LlmCall, values) if values.forall(_.isInstanceOf[Literal]) =>
      test(call, "in", values.map(_.asInstanceOf[Literal]))
    case InSet(call: LlmCall, values) => test(call, "in", values.toSeq.map(Literal(_, call.dataType)))
    case Not(inner) => read(inner).collect { case AnswerTest(call, Seq(("in", values))) => AnswerTest(call, Seq("not in" -> values)) }
    case LessThan(call: LlmCall, value: Literal) => number(call, "<", value)
    case LessThan(value: Literal, call: LlmCall) => number(call, ">", value)
    case LessThanOrEqual(call: LlmCall, value: Literal) => number(call, "<=", value)
    case LessThanOrEqual(value: Literal, call: LlmCall) => number(call, ">=", value)
    case GreaterThan(call: LlmCall, value: Literal) => number(call, ">", value)
    case GreaterThan(value: Literal, call: LlmCall) => number(call, "<", value)
    case GreaterThanOrEqual(call: LlmCall, value: Literal) => number(call, ">=", value)
    case GreaterThanOrEqual(value: Literal, call: LlmCall) => number(call, "<=", value)
    case _ => None
  }

  private def number(call: LlmCall, test: String, value: Literal): Option[AnswerTest] =
    if (Integers(call.dataType)) this.test(call, test, Seq(value)) else None

  private def test(call: LlmCall, test: String, literals: Seq[Literal]): Option[AnswerTest] = {
    val values = literals.flatMap(constant)
    val usable = (Comparable ++ Integers)(call.dataType) && literals.forall(_.dataType == call.dataType)
    Option.when(usable && values.size == literals.size)(AnswerTest(call, Seq(test -> values)))
  }

  private def constant(literal: Literal): Option[Any] = literal.value match {
    case text: UTF8String => Some(text.toString)
    case flag: Boolean => Some(flag)
    case number: java.lang.Number => Some(number.longValue)
    case _ => None
  }
}
