package io.sparkllm.catalyst.functions

import io.sparkllm.catalyst.LlmErrors

import org.apache.spark.sql.catalyst.InternalRow
import org.apache.spark.sql.catalyst.expressions.{Expression, ExpressionInfo, UnaryExpression}
import org.apache.spark.sql.catalyst.expressions.codegen.{CodegenContext, ExprCode}
import org.apache.spark.sql.types.{DataType, StringType}

/** `llm_options('{"max_tokens": 64}')`: options for APIs that have no named arguments; a call takes it apart. */
case class LlmOptions(child: Expression) extends UnaryExpression {
  override def dataType: DataType = StringType
  override def nullable: Boolean = false
  override def prettyName: String = LlmOptions.Name
  override def eval(input: InternalRow): Any = throw new IllegalStateException(s"$this stands outside a call")
  override protected def doGenCode(ctx: CodegenContext, ev: ExprCode): ExprCode =
    throw new IllegalStateException(s"$this stands outside a call")
  override protected def withNewChildInternal(newChild: Expression): LlmOptions = copy(newChild)
}

object LlmOptions {
  val Name = "llm_options"
  private val Usage = s"$Name(json)"

  def build(arguments: Seq[Expression]): Expression = arguments match {
    case Seq(json) if json.foldable && json.dataType == StringType && json.eval() != null => LlmOptions(json)
    case _ => throw LlmErrors("LLM_MALFORMED_CALL",
      "function" -> Name, "detail" -> "it needs one constant STRING holding a JSON object", "usage" -> Usage)
  }

  def outside: Throwable = LlmErrors("LLM_MALFORMED_CALL", "function" -> Name,
    "detail" -> "it stands outside an LLM function", "usage" -> s"llm('...', review, $Usage)")

  def info: ExpressionInfo = new ExpressionInfo(
    classOf[LlmOptions].getName, null, Name, "_FUNC_(json) - Options of an LLM function as a constant JSON object.",
    "\n    Arguments:\n      json - constant STRING; the call's last positional argument is _FUNC_(json).\n  ",
    "\n    Examples:\n      > SELECT llm('Summarize', review, _FUNC_('{\"max_tokens\": 64}')) FROM reviews;\n  ",
    "", "misc_funcs", "0.1.0", "", "scala_udf")
}
