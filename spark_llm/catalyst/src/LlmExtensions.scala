package io.sparkllm.catalyst

import io.sparkllm.catalyst.analysis.{CheckLlmPlaces, NameLlmFields}
import io.sparkllm.catalyst.functions._
import io.sparkllm.catalyst.report.PrepareSession
import io.sparkllm.catalyst.rules._

import org.apache.spark.sql.{SparkSessionExtensions, SparkSessionExtensionsProvider}
import org.apache.spark.sql.catalyst.FunctionIdentifier

/**
 * The extension, loaded by `spark.jars` alone through `META-INF/services`. What runs where:
 *
 *  - resolution: `CallBuilder` turns `llm`, `llm_filter`, `llm_classify` and `llm_extract` into an `LlmCall`
 *  - after resolution: `NameLlmFields` names and renders the fields, `CheckLlmPlaces` refuses places where a call would
 *    be evaluated twice, `PrepareSession` switches on EXPLAIN's section and the report
 *  - Pre-CBO, once, when Spark has pushed down all it can, in this order:
 *     1. `PlaceLlmLimits`: LIMIT before the model
 *     1. `PlaceLlmFilters`: cheap predicates, joins and grouping before the model
 *     1. `RewriteLlmJoins`: join conditions over both sides that Spark cannot run
 *     1. `OrderLlmPredicates`: several predicates by cost and selectivity; early stop under a LIMIT
 *     1. `ShareLlmCalls`: equal calls into one `Ask`, spared where a branch is not taken
 *     1. `DeduplicateLlmCalls`: distinct arguments, planned (`CallPlanner`), ordered, asked, joined back
 *     1. `ReadResultLog`: answers of the result log joined to the tuples that would be asked
 *     1. `ProtectLlmAnswers`: no second evaluation by a sort's sampling
 *     1. `BindLlmCalls`: a stock Python UDF, which Spark's batch "Extract Python UDFs" runs
 */
class LlmExtensions extends SparkSessionExtensionsProvider {

  override def apply(extensions: SparkSessionExtensions): Unit = {
    Tables.functions.map(_.name).foreach { name =>
      extensions.injectFunction((FunctionIdentifier(name), CallBuilder.info(name), CallBuilder(name)(_)))
    }
    extensions.injectFunction((FunctionIdentifier(LlmOptions.Name), LlmOptions.info, LlmOptions.build _))
    // Listed in spark.sql.extensions as well, all of this is injected twice: a second run of a rule finds nothing to do.
    extensions.injectPostHocResolutionRule(_ => NameLlmFields)
    extensions.injectPostHocResolutionRule(_ => CheckLlmPlaces)
    extensions.injectPostHocResolutionRule(PrepareSession(_))
    extensions.injectPreCBORule(_ => PlaceLlmLimits)
    extensions.injectPreCBORule(_ => PlaceLlmFilters)
    extensions.injectPreCBORule(_ => RewriteLlmJoins)
    extensions.injectPreCBORule(_ => OrderLlmPredicates)
    extensions.injectPreCBORule(_ => ShareLlmCalls)
    extensions.injectPreCBORule(DeduplicateLlmCalls(_))
    extensions.injectPreCBORule(ReadResultLog(_))
    extensions.injectPreCBORule(_ => ProtectLlmAnswers)
    extensions.injectPreCBORule(_ => BindLlmCalls)
  }
}
