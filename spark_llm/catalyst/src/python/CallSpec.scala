package io.sparkllm.catalyst.python

import io.sparkllm.catalyst.{Json, LlmConf}
import io.sparkllm.catalyst.functions.{CallParams, LlmCall}

/** The `CallSpec` of `optimizer/core.py`: what planner and executor know about a call. */
object CallSpec {
  def of(call: LlmCall): Map[String, Any] = of(call.params, LlmConf.settings)

  private def of(params: CallParams, conf: Map[String, String]): Map[String, Any] =
    Map(
      "function" -> params.function,
      "instruction" -> params.instruction,
      "fields" -> params.fields.map(field => Map("name" -> field.name, "kind" -> field.kind)),
      "options" -> params.options,
      "result_type" -> Json.parse(params.valueType.json),
      "conf" -> conf,
      "plan" -> params.plan.map { plan =>
        Map[String, Any]("order" -> plan.order, "reasons" -> plan.reasons, "estimate" -> plan.estimate)
      },
      "log" -> params.log.map { log =>
        Map[String, Any]("folder" -> log.folder, "since" -> log.since, "joined" -> log.joined)
      },
      "limit" -> params.stopAfter.orElse(params.hints.limit),
      "terms" -> params.terms.map { term =>
        Map[String, Any]("call" -> of(term.params, Map.empty), "columns" -> term.columns,
          "tests" -> term.tests.map { case (test, values) => Seq[Any](test, values) })
      })
}
