package io.sparkllm.catalyst.rules

import io.sparkllm.catalyst.{Json, LlmConf}
import io.sparkllm.catalyst.functions.{CallParams, LlmCall}
import io.sparkllm.catalyst.python.{CallSpec, PythonInterpreter, PythonPickle}

import org.apache.spark.SPARK_VERSION
import org.apache.spark.sql.catalyst.expressions._
import org.apache.spark.sql.catalyst.plans.logical.{LogicalPlan, Project}
import org.apache.spark.sql.catalyst.rules.Rule
import org.apache.spark.sql.sparkllm.SparkPython
import org.apache.spark.sql.types.{BinaryType, DataType}

/** Binds every call that is left to a stock Python UDF, which Spark's own rules then extract and run. */
object BindLlmCalls extends Rule[LogicalPlan] {
  private val PandasIterator = 204
  private val ArrowIterator = 251

  override def apply(plan: LogicalPlan): LogicalPlan = budgeted(plan).transformUp {
    case ask: Ask => bind(ask)
  }.transformAllExpressions { case call: LlmCall => publicValue(call.params, bind(call)) }

  /** Where there is a budget, each task learns what the whole query is expected to take, so that none begins in vain. */
  private def budgeted(plan: LogicalPlan): LogicalPlan =
    if (Seq("budget.tokens", "budget.cost").forall(LlmConf.limit(_).isEmpty)) plan
    else {
      val estimates = plan.collect { case ask: Ask => ask.calls }.flatten.map(_.params).distinct.flatMap(_.plan).map(_.estimate)
      def total(names: String*) = estimates.map(e => toAsk(e) * names.map(e.getOrElse(_, 0.0)).sum).sum
      val query = Map("query_tokens" -> total("prompt_tokens", "output_tokens"), "query_cost" -> total("cost"))
      plan.transformUp { case ask: Ask => ask.mapCalls { call =>
        call.copy(params = call.params.copy(plan = call.params.plan.map(p => p.copy(estimate = p.estimate ++ query))))
      } }
    }

  /** The share of a call's tuples that the result log cannot hold: it names how many answers it has, not to which. */
  private def toAsk(estimate: Map[String, Double]): Double =
    estimate.get("logged").fold(1.0)(answers => math.max(1 - answers / math.max(estimate.getOrElse("distinct", 0.0), 1.0), 0.0))

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

  def bind(call: LlmCall): PythonUDF =
    bound(call.params.function, Json.text(CallSpec.of(call)), LlmCall.answered(call.params.valueType), call.arguments)

  /** The Python function that asks the call of `spec` about arguments that are rendered. */
  def bound(function: String, spec: String, resultType: DataType, rendered: Seq[Expression]): PythonUDF = {
    val python = PythonInterpreter.current()
    val command = PythonPickle.command(spec, resultType.json)
    // A Python UDF needs a column to know its rows by.
    val columns = if (rendered.isEmpty) Seq(Literal("")) else rendered
    // Through pandas, a string of invalid UTF-8 would fail in PySpark before our code sees it; bytes pass.
    val arguments = if (evalType == PandasIterator) columns.map(Cast(_, BinaryType)) else columns
    SparkPython.udf(function, command, python.executable, python.version, resultType, arguments, evalType)
  }

  private def evalType: Int = if (SPARK_VERSION.startsWith("4.0.")) PandasIterator else ArrowIterator
}
