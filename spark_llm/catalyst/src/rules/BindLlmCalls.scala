package io.sparkllm.catalyst.rules

import io.sparkllm.catalyst.Json
import io.sparkllm.catalyst.functions.{CallParams, LlmCall}
import io.sparkllm.catalyst.python.{CallSpec, PythonInterpreter, PythonPickle}

import org.apache.spark.SPARK_VERSION
import org.apache.spark.sql.catalyst.expressions._
import org.apache.spark.sql.catalyst.plans.logical.{LogicalPlan, Project}
import org.apache.spark.sql.catalyst.rules.Rule
import org.apache.spark.sql.sparkllm.SparkPython

/** Binds every call that is left to a stock Python UDF, which Spark's own rules then extract and run. */
object BindLlmCalls extends Rule[LogicalPlan] {
  private val PandasIterator = 204
  private val ArrowIterator = 251

  override def apply(plan: LogicalPlan): LogicalPlan = plan.transformUp {
    case ask: Ask => bind(ask)
  }.transformAllExpressions { case call: LlmCall => publicValue(call.params, bind(call)) }

  private def bind(ask: Ask): LogicalPlan = {
    val (bound, public) = ask.answers.map { alias =>
      val (call, needed) = (Answer.call(alias), Answer.needed(alias))
      val raw = Alias(bind(sparing(call, needed)), "answer")()
      val value = publicValue(call.params, raw.toAttribute)
      val shown = if (call.arguments.isEmpty) needed.fold(value)(If(_, value, Literal(null, value.dataType))) else value
      (raw, Alias(shown, alias.name)(exprId = alias.exprId))
    }.unzip
    val metered = CallMetrics.over(ask, bound.map(_.toAttribute), Project(ask.child.output ++ bound, ask.child))
    Project(ask.child.output ++ public, metered)
  }

  /** Rows that do not need an answer send NULLs, which are not asked. */
  private def sparing(call: LlmCall, needed: Option[Expression]): LlmCall = needed.fold(call) { condition =>
    call.withArguments(call.arguments.map(argument => If(condition, argument, Literal(null, argument.dataType))))
  }

  /** The public value of a call out of its answer. */
  def publicValue(params: CallParams, answer: Expression): Expression = {
    val value = GetStructField(answer, 0, Some("value"))
    if (!params.reportsErrors) value
    else CreateNamedStruct(Seq(Literal("value"), value, Literal("error"), GetStructField(answer, 1, Some("error"))))
  }

  def bind(call: LlmCall): PythonUDF = {
    val python = PythonInterpreter.current()
    val resultType = LlmCall.answered(call.params.valueType)
    val command = PythonPickle.command(Json.text(CallSpec.of(call)), resultType.json)
    // A Python UDF needs a column to know its rows by.
    val arguments = if (call.arguments.isEmpty) Seq(Literal("")) else call.arguments
    SparkPython.udf(
      call.params.function, command, python.executable, python.version, resultType, arguments, evalType)
  }

  private def evalType: Int = if (SPARK_VERSION.startsWith("4.0.")) PandasIterator else ArrowIterator
}
