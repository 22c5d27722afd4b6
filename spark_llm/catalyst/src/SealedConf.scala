package io.sparkllm.catalyst

import org.apache.spark.SparkEnv

/** Settings that the application fixed when it started: a session that changes one is refused. */
object SealedConf {
  private val Key = "spark.llm.sealed"
  private val Always = Seq(Key, "spark.llm.models.allowed", "spark.llm.files.allowed")

  private def application = SparkEnv.get.conf

  private def patterns: Seq[String] =
    Always ++ application.get(Key, "").split(",").map(_.trim).filter(_.nonEmpty)

  /** Whether sessions may not change `key`. */
  def apply(key: String): Boolean = patterns.exists { pattern =>
    if (pattern.endsWith("*")) key.startsWith(pattern.init) else key == pattern
  }

  /** The application's value of a sealed key, which the session's must equal. */
  def same(key: String, value: String, default: String): String = {
    val fixed = application.get(key, default)
    if (value != fixed) throw LlmErrors("LLM_SEALED_CONF", "key" -> key)
    fixed
  }

  /** A session's settings with the application's values for what is sealed, also where the session has unset it. */
  def over(settings: Map[String, String]): Map[String, String] = {
    settings.foreach { case (key, value) => if (apply(key)) same(key, value, Tables.confDefault(key)) }
    settings ++ application.getAll.filter { case (key, _) => key.startsWith("spark.llm.") && apply(key) }
  }
}
