package io.sparkllm.catalyst.analysis

import io.sparkllm.catalyst.LlmErrors

import org.apache.spark.sql.catalyst.expressions._
import org.apache.spark.sql.internal.SQLConf
import org.apache.spark.sql.types._

/**
 * The text that a field's value has in the prompt, as an expression.
 *
 * Grouping and joins of the rewrites compare these texts, so two values are one question exactly if the model would see
 * the same.
 */
object RenderField {

  /** The STRING expression and the kind under which Python reads it. */
  def apply(function: String, name: String, value: Expression): (Expression, String) = value.dataType match {
    case text: StringType => (if (text == StringType) value else Cast(value, StringType), "text")
    case other if holdsBinary(other) =>
      throw LlmErrors("LLM_BINARY_FIELD", "field" -> name, "function" -> function)
    case _ => (json(function, name, value), "json")
  }

  private def holdsBinary(dataType: DataType): Boolean = dataType match {
    case BinaryType => true
    case StructType(fields) => fields.exists(field => holdsBinary(field.dataType))
    case ArrayType(element, _) => holdsBinary(element)
    case MapType(key, value, _) => holdsBinary(key) || holdsBinary(value)
    case _ => false
  }

  /** `{"v":value}`; SQL NULL stays NULL, so that a record without any value is not asked. */
  private def json(function: String, name: String, value: Expression): Expression = {
    val record = CreateNamedStruct(Seq(Literal("v"), value))
    val text = StructsToJson(Map("ignoreNullFields" -> "false"), record, Some(SQLConf.get.sessionLocalTimeZone))
    if (text.checkInputDataTypes().isFailure) {
      throw LlmErrors.malformed(function, s"field '$name' of type ${value.dataType.sql} has no JSON form")
    }
    // Two copies of a non-deterministic value would disagree.
    if (value.nullable && value.deterministic) If(IsNull(value), Literal(null, StringType), text) else text
  }
}
