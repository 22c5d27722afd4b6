package io.sparkllm.catalyst.functions

/**
 * What was decided for a call: the field order, and in words what was and was not rewritten. It travels in the bound
 * function's spec, where EXPLAIN finds it.
 */
final case class CallPlan(
    order: Seq[Int], reasons: Seq[String] = Nil, estimate: Map[String, Double] = Map.empty)
