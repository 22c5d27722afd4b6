package io.sparkllm.catalyst.functions

import scala.util.Try

import com.fasterxml.jackson.databind.JsonNode
import io.sparkllm.catalyst.{Json, LlmErrors, Tables}

import org.apache.spark.sql.AnalysisException
import org.apache.spark.sql.catalyst.expressions.Expression
import org.apache.spark.sql.catalyst.util.ArrayData
import org.apache.spark.sql.types._
import org.apache.spark.unsafe.types.UTF8String

/** Options of a call: read from literals or JSON, checked against `functions.json`. */
final case class Options(function: String) {
  private val accepted = Tables.function(function).options

  /** Named arguments, which must be constant. */
  def fromArguments(arguments: Seq[(String, Expression)]): Map[String, Any] = {
    arguments.groupBy(_._1).find(_._2.size > 1).foreach { case (name, _) =>
      throw LlmErrors.malformed(function, s"option '$name' is given twice")
    }
    arguments.map { case (name, expression) => name -> check(name, fold(name, expression)) }.toMap
  }

  /** The object in `llm_options('{...}')`. */
  def fromJson(text: String): Map[String, Any] = {
    val node = Try(Json.parse(text)).filter(_.isObject).getOrElse(
      throw LlmErrors.malformed(function, "llm_options() needs a constant JSON object"))
    var read = Map.empty[String, Any]
    node.properties.forEach(entry => read += entry.getKey -> check(entry.getKey, Json.value(entry.getValue)))
    read
  }

  def rejectContradictions(options: Map[String, Any]): Unit = {
    val constraints = Seq("choices", "returns", "json_schema", "regex").filter(options.contains)
    if (constraints.size > 1) throw LlmErrors.malformed(function, s"${constraints.mkString(" and ")} exclude each other")
  }

  private def check(name: String, value: Any): Any = {
    if (!accepted.contains(name)) {
      throw LlmErrors("LLM_UNKNOWN_OPTION",
        "function" -> function, "option" -> name, "accepted" -> accepted.mkString(", "))
    }
    val rule = Tables.option(name)
    Options.fit(rule, value).getOrElse(throw bad(name, Json.text(value)))
  }

  private def fold(name: String, expression: Expression): Any = {
    if (accepted.contains(name) && !expression.foldable) throw bad(name, s"the expression ${expression.sql}")
    if (expression.foldable) Options.constant(expression) else null
  }

  def bad(name: String, actual: String): AnalysisException = {
    val rule = Tables.option(name)
    LlmErrors("LLM_BAD_OPTION", "function" -> function, "option" -> name,
      "expected" -> Options.expected(rule), "actual" -> actual, "doc" -> s"$name: ${rule.get("doc").asText}.")
  }
}

object Options {

  /** A foldable expression's value, in the forms of `Json.value`. */
  def constant(expression: Expression): Any = (expression.eval(), expression.dataType) match {
    case (text: UTF8String, _) => text.toString
    case (array: ArrayData, ArrayType(_: StringType, _)) if (0 until array.numElements()).forall(!array.isNullAt(_)) =>
      (0 until array.numElements()).map(array.getUTF8String(_).toString)
    case (number: Decimal, _) => number.toDouble
    case (number: java.lang.Number, FloatType | DoubleType) => number.doubleValue
    case (number: java.lang.Number, ByteType | ShortType | IntegerType | LongType) => number.longValue
    case (flag: Boolean, _) => flag
    case (null, _) => null
    case _ => expression.sql
  }

  /** `value` in the type of `rule`, if it is of that type and within its bounds. */
  private def fit(rule: JsonNode, value: Any): Option[Any] = (rule.get("type").asText, value) match {
    case ("int", n: Long) => Some(n).filter(v => v.isValidInt && within(rule, v.toDouble))
    case ("long", n: Long) => Some(n)
    case ("double", n: Long) => Some(n.toDouble).filter(within(rule, _))
    case ("double", n: Double) => Some(n).filter(within(rule, _))
    case ("boolean", b: Boolean) => Some(b)
    case ("string_array", items: Seq[_]) => Some(items).filter(all => all.nonEmpty && all.forall(_.isInstanceOf[String]))
    case ("ddl", text: String) => Some(text).filter(ddl => Try(DataType.fromDDL(ddl)).toOption.exists(AnswerType.allows))
    case ("string", text: String) => Some(text).filter(t => choices(rule).forall(_.contains(t)))
    case _ => None
  }

  private def within(rule: JsonNode, value: Double): Boolean =
    Option(rule.get("minimum")).forall(value >= _.asDouble) && Option(rule.get("maximum")).forall(value <= _.asDouble)

  private def choices(rule: JsonNode): Option[Seq[String]] =
    Option(rule.get("choices")).map(Json.value(_).asInstanceOf[Seq[String]])

  private def expected(rule: JsonNode): String = {
    val bounds = Seq("minimum" -> ">=", "maximum" -> "<=").flatMap { case (key, sign) =>
      Option(rule.get(key)).map(limit => s" $sign ${limit.asText}")
    }
    choices(rule).map(_.map(c => s"'$c'").mkString("one of ", ", ", "")).getOrElse(Types(rule.get("type").asText)) +
      bounds.mkString(" and")
  }

  private val Types = Map(
    "string" -> "a constant STRING", "int" -> "a constant INT", "long" -> "a constant BIGINT",
    "double" -> "a constant number", "boolean" -> "true or false",
    "string_array" -> "a constant non-empty ARRAY<STRING>", "ddl" -> s"a constant SQL type of ${AnswerType.Accepted}")
}
