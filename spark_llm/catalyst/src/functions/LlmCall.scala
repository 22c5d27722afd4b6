package io.sparkllm.catalyst.functions

import io.sparkllm.catalyst.Json

import org.apache.spark.sql.catalyst.InternalRow
import org.apache.spark.sql.catalyst.expressions.{Expression, Literal, NamedArgumentExpression}
import org.apache.spark.sql.catalyst.expressions.codegen.{CodegenContext, ExprCode}
import org.apache.spark.sql.catalyst.trees.CurrentOrigin
import org.apache.spark.sql.types._

/** What an argument is to the call: the row's own prompt, or one field of the record. Media and adapters come later. */
sealed trait Role
case object PromptRole extends Role
case object FieldRole extends Role

/**
 * One argument column.
 *
 * @param name what the model sees; empty until `NameLlmFields` ran
 * @param kind how Python reads the column: `text`, `json` or `prompt`
 */
final case class CallField(role: Role, name: String = "", kind: String = "")

/**
 * One term of a conjunction: the answer of `params` passes all `tests`.
 *
 * @param columns the call's arguments among those of the conjunction
 * @param tests `in`, `not in`, `not null` or a comparison, and the constants that the answer is compared with
 */
final case class Term(params: CallParams, columns: Seq[Int], tests: Seq[(String, Seq[Any])])

/**
 * What is known of a call beside what it asks.
 *
 * @param reasons for EXPLAIN
 * @param limit rows that operators above want, roughly
 */
final case class CallHints(reasons: Seq[String] = Nil, limit: Option[Int] = None)

/**
 * Everything about a call that no row changes.
 *
 * @param terms if there are any, the call is their conjunction
 * @param stopAfter so many rows of a task that pass are wanted; the others need not be asked
 */
final case class CallParams(
    function: String,
    instruction: String,
    options: Map[String, Any],
    valueType: DataType,
    fields: Seq[CallField],
    plan: Option[CallPlan] = None,
    log: Option[CallLog] = None,
    terms: Seq[Term] = Nil,
    stopAfter: Option[Int] = None,
    hints: CallHints = CallHints()) {

  def deterministic: Boolean = stopAfter.isEmpty && (options.contains("seed") || (options.get("temperature") match {
    case Some(t: Double) => t == 0
    case Some(t: Long) => t == 0
    case _ => true
  }))

  def hinted(reasons: Seq[String] = Nil, limit: Option[Int] = None): CallParams =
    copy(hints = CallHints(hints.reasons ++ reasons, limit.orElse(hints.limit)))

  def reportsErrors: Boolean = options.get("on_error").contains("struct")

  def named: Boolean = fields.forall(_.name.nonEmpty)
}

/**
 * A call of an LLM function before it is bound to a Python function.
 *
 * `children` are the arguments in the order of `params.fields`, where the result log was joined its answer, then
 * `LlmCall.Unbound`.
 */
case class LlmCall(children: Seq[Expression], params: CallParams) extends Expression {
  override lazy val deterministic: Boolean = params.deterministic && children.forall(_.deterministic)
  override def nullable: Boolean = true
  override def dataType: DataType = if (params.reportsErrors) LlmCall.reported(params.valueType) else params.valueType
  override def prettyName: String = params.function

  /** Calls that ask the same are the same, whatever their hints. */
  override lazy val canonicalized: Expression = withCanonicalizedChildren match {
    case call: LlmCall => call.copy(params = call.params.copy(hints = CallHints()))
    case other => other
  }

  def arguments: Seq[Expression] = children.init

  def withArguments(arguments: Seq[Expression], params: CallParams = params): LlmCall =
    CurrentOrigin.withOrigin(origin)(LlmCall(arguments :+ children.last, params))

  override def eval(input: InternalRow): Any = throw new IllegalStateException(s"$this was not bound")

  override protected def doGenCode(ctx: CodegenContext, ev: ExprCode): ExprCode =
    throw new IllegalStateException(s"$this was not bound")

  override def sql: String = show(arguments.map(_.sql))

  override def toString: String = show(arguments.map(_.toString))

  private def show(arguments: Seq[String]): String = {
    val terms = params.terms.map(term => s"${term.params.function}(${term.params.instruction})")
    val options = params.options.toSeq.sortBy(_._1).map { case (name, value) => s"$name => ${Json.text(value)}" }
    (terms ++ Option(params.instruction).filter(_.nonEmpty) ++ arguments ++ options).mkString(s"$prettyName(", ", ", ")")
  }

  override protected def withNewChildrenInternal(newChildren: IndexedSeq[Expression]): LlmCall =
    copy(children = newChildren)
}

object LlmCall {

  /**
   * Marks the call as one that Catalyst must not evaluate. ConvertToLocalRelation and EliminateOuterJoin evaluate any
   * deterministic expression without an `Unevaluable` in it; extending that trait would tie the JAR to one Spark minor.
   */
  val Unbound: Expression = NamedArgumentExpression("bound", Literal.FalseLiteral)

  def of(arguments: Seq[Expression], params: CallParams): LlmCall = LlmCall(arguments :+ Unbound, params)

  val ErrorType: StructType =
    new StructType().add("condition", StringType).add("message", StringType).add("attempts", IntegerType)

  val UsageType: StructType = new StructType()
    .add("prompt", LongType).add("cached", LongType).add("output", LongType).add("calls", LongType)
    .add("known", LongType)

  /** The public type under `on_error => 'struct'`. */
  def reported(value: DataType): StructType = new StructType().add("value", value).add("error", ErrorType)

  /** The type of the bound Python function's result. */
  def answered(value: DataType): StructType = reported(value).add("usage", UsageType)
}
