package io.sparkllm.catalyst

import io.sparkllm.catalyst.analysis.{CheckLlmPlaces, NameLlmFields}
import io.sparkllm.catalyst.functions._
import io.sparkllm.catalyst.rules._

import org.apache.spark.sql.{SparkSessionExtensions, SparkSessionExtensionsProvider}
import org.apache.spark.sql.catalyst.FunctionIdentifier

/**
 * The extension: what runs where.
 */
class LlmExtensions extends SparkSessionExtensionsProvider {

  override def apply(extensions: SparkSessionExtensions): Unit = {
    Tables.functions.map(_.name).foreach { name =>
      extensions.injectFunction((FunctionIdentifier(name), CallBuilder.info(name), CallBuilder(name)(_)))
    }
    extensions.injectFunction((FunctionIdentifier(LlmOptions.Name), LlmOptions.info, LlmOptions.build _))
    extensions.injectPostHocResolutionRule(_ => NameLlmFields)
    extensions.injectPostHocResolutionRule(_ => CheckLlmPlaces)
    extensions.injectPreCBORule(_ => PlaceLlmLimits)
    extensions.injectPreCBORule(_ => PlaceLlmFilters)
    extensions.injectPreCBORule(_ => ShareLlmCalls)
    extensions.injectPreCBORule(session => DeduplicateLlmCalls(session))
    extensions.injectPreCBORule(_ => ProtectLlmAnswers)
    extensions.injectPreCBORule(_ => BindLlmCalls)
  }
}
