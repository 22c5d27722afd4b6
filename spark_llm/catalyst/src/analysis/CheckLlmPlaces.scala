package io.sparkllm.catalyst.analysis

import io.sparkllm.catalyst.LlmErrors
import io.sparkllm.catalyst.functions.LlmCall

import org.apache.spark.sql.catalyst.expressions.{Expression, LambdaFunction}
import org.apache.spark.sql.catalyst.plans.logical._
import org.apache.spark.sql.catalyst.rules.Rule

/** Refuses calls where Spark would evaluate them more than once, or cannot evaluate them at all. */
object CheckLlmPlaces extends Rule[LogicalPlan] {

  override def apply(plan: LogicalPlan): LogicalPlan = {
    plan.foreach { node =>
      node.expressions.foreach(_.foreach {
        case lambda: LambdaFunction => refuseIn(lambda)
        case _ =>
      })
    }
    plan.foreach {
      case Join(_, _, _, condition, _) => refuse(condition.toSeq, "JOIN ON")
      case Aggregate(grouping, _, _, _) => refuse(grouping, "GROUP BY")
      case Sort(order, _, _, _) => refuse(order, "ORDER BY")
      case _ =>
    }
    plan
  }

  private def refuseIn(lambda: LambdaFunction): Unit =
    lambda.collectFirst { case call: LlmCall => call }.foreach { call =>
      throw LlmErrors("LLM_UNSUPPORTED_PLACE", "function" -> call.params.function, "place" -> "a lambda function",
        "detail" -> "Spark runs Python functions on rows, not on elements")
    }

  private def refuse(expressions: Seq[Expression], place: String): Unit =
    expressions.flatMap(_.collect { case call: LlmCall if !call.params.deterministic => call }).headOption.foreach {
      call => throw LlmErrors("LLM_NONDETERMINISTIC_HERE", "function" -> call.params.function, "place" -> place)
    }
}
