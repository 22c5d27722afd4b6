package io.sparkllm.catalyst.rules

import io.sparkllm.catalyst.functions.CallPlan

import org.apache.spark.sql.SparkSession

/** Gives the calls of an `Ask` their plan: the field order and the reasons that EXPLAIN shows. */
final case class CallPlanning(session: SparkSession) {

  def apply(ask: Ask, reason: String): Ask = ask.mapCalls { call =>
    call.copy(params = call.params.copy(plan = Some(CallPlan(call.arguments.indices, Seq(reason)))))
  }
}

object CallPlanning {
  def isSmall(ask: Ask): Boolean = false
}
