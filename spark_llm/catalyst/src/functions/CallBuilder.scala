package io.sparkllm.catalyst.functions

import io.sparkllm.catalyst.LlmErrors

import org.apache.spark.sql.catalyst.expressions._
import org.apache.spark.sql.types._
import org.apache.spark.unsafe.types.UTF8String

import io.sparkllm.catalyst.Tables

/** From the arguments as written to an `LlmCall`, or an error that names what is accepted. */
final case class CallBuilder(function: String) {
  private val checks = Options(function)

  def apply(arguments: Seq[Expression]): Expression = {
    val (positional, options) = split(arguments)
    checks.rejectContradictions(options)
    function match {
      case "llm_classify" => classify(positional, options)
      case "llm_extract" => extract(positional, options)
      case _ => prompted(positional, options)
    }
  }

  private def split(arguments: Seq[Expression]): (Seq[Expression], Map[String, Any]) = {
    val named = arguments.collect { case NamedArgumentExpression(name, value) => name -> value }
    val positional = arguments.filterNot(_.isInstanceOf[NamedArgumentExpression])
    val fromJson = positional.lastOption.collect { case LlmOptions(text) => checks.fromJson(text.eval().toString) }
    val fields = if (fromJson.isDefined) positional.init else positional
    (fields, fromJson.getOrElse(Map.empty) ++ checks.fromArguments(named))
  }

  private def prompted(positional: Seq[Expression], options: Map[String, Any]): LlmCall = {
    val prompt = positional.headOption.getOrElse(throw malformed("the prompt is missing"))
    if (!prompt.dataType.isInstanceOf[StringType]) {
      throw malformed(s"the prompt must be a STRING, got ${prompt.dataType.sql}")
    }
    val (instruction, rest) = constantHead(prompt)
    // Beside other fields the varying part of a prompt is a field like them, so that its value can be ordered too.
    val role = if (positional.size == 1) PromptRole else FieldRole
    val valueType = options.get("returns").map(ddl => DataType.fromDDL(ddl.toString)).getOrElse(
      if (function == "llm_filter") BooleanType else StringType)
    call(instruction, options, valueType, rest.map(_ -> role).toSeq ++ positional.tail.map(_ -> FieldRole))
  }

  private def classify(positional: Seq[Expression], options: Map[String, Any]): LlmCall = {
    val labels = last(positional, "an ARRAY<STRING> of labels") match {
      case items: Seq[_] if items.distinct.size == items.size && items.size >= 2 => items
      case other => throw malformed(s"the labels must be at least two distinct constant strings, got ${show(other)}")
    }
    call("", options + ("choices" -> labels), StringType, fields(positional))
  }

  private def extract(positional: Seq[Expression], options: Map[String, Any]): LlmCall = {
    val ddl = last(positional, "a schema in DDL").toString
    val schema = scala.util.Try(DataType.fromDDL(ddl)).toOption match {
      case Some(struct: StructType) if AnswerType.allows(struct) => struct
      case _ => throw malformed(s"'$ddl' is no schema of ${AnswerType.Accepted}")
    }
    call("", options + ("returns" -> ddl), schema, fields(positional))
  }

  private def last(positional: Seq[Expression], expected: String): Any =
    positional.lastOption.filter(_.foldable).map(Options.constant).filter(_ != null).getOrElse(
      throw malformed(s"the last positional argument must be $expected, constant"))

  private def fields(positional: Seq[Expression]): Seq[(Expression, Role)] = {
    if (positional.size < 2) throw malformed("it has no field")
    positional.init.map(_ -> FieldRole)
  }

  private def call(
      instruction: String, options: Map[String, Any], valueType: DataType, arguments: Seq[(Expression, Role)]): LlmCall = {
    arguments.map(_._1).foreach {
      case _: LlmOptions => throw malformed("llm_options() must be its last argument")
      case _ =>
    }
    LlmCall.of(arguments.map(_._1),
      CallParams(function, instruction, options, valueType, arguments.map(a => CallField(a._2))))
  }

  /** The prompt's leading constant text, and what follows it if anything varies. */
  private def constantHead(prompt: Expression): (String, Option[Expression]) = {
    val (constants, varying) = pieces(prompt).span(_.foldable)
    val values = constants.map(_.eval())
    if (values.contains(null)) throw malformed("the prompt is NULL")
    val rest = varying match {
      case Seq() => None
      case Seq(single) => Some(single)
      case several => Some(Concat(several))
    }
    (values.map(_.asInstanceOf[UTF8String].toString).mkString, rest)
  }

  private def pieces(prompt: Expression): Seq[Expression] = prompt match {
    case Concat(children) => children.flatMap(pieces)
    case other => Seq(other)
  }

  private def show(value: Any): String = value match {
    case items: Seq[_] => items.mkString("array(", ", ", ")")
    case other => other.toString
  }

  private def malformed(detail: String) = LlmErrors.malformed(function, detail)
}

object CallBuilder {

  /** What `DESCRIBE FUNCTION EXTENDED` shows. */
  def info(function: String): ExpressionInfo = {
    val row = Tables.function(function)
    val options = row.options.map { name =>
      s"$name => ${Tables.option(name).get("type").asText} - ${Tables.option(name).get("doc").asText}"
    }
    def block(title: String, lines: Seq[String]) = lines.mkString(s"\n    $title:\n      ", "\n      ", "\n  ")
    new ExpressionInfo(
      classOf[LlmCall].getName, null, function, s"_FUNC_${row.usage.stripPrefix(function)}",
      block("Arguments", row.arguments.split("\n").toSeq ++ options), block("Examples", Seq(s"> ${row.example}")),
      "", "misc_funcs", "0.1.0", "", "scala_udf")
  }
}
