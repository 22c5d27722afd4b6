package io.sparkllm.catalyst

import org.apache.spark.sql.internal.SQLConf

/** The session's `spark.llm.*` settings, with the defaults of `conf.json`. */
object LlmConf {
  private val Prefix = "spark.llm."

  def text(name: String): String = {
    val (key, default) = (Prefix + name, Tables.confDefault(Prefix + name))
    val value = SQLConf.get.getConfString(key, default)
    if (SealedConf(key)) SealedConf.same(key, value, default) else value
  }

  def flag(name: String): Boolean = parse(name, "a boolean")(_.toLowerCase.toBooleanOption)

  def integer(name: String): Int = parse(name, "an integer")(_.toIntOption)

  def number(name: String): Double = parse(name, "a number")(_.toDoubleOption)

  /** A number, `None` where none is set. */
  def limit(name: String): Option[Double] = Option.when(text(name).nonEmpty)(number(name))

  /** Whether a rewrite may run: its own switch and the one for all. */
  def optimizes(rewrite: String): Boolean = optimizes && flag(s"optimize.$rewrite.enabled")

  def optimizes: Boolean = flag("optimize.enabled")

  /** Keys that only the plan depends on: they would make equal calls look different. */
  private val PlanningOnly =
    Seq("planner.", "optimize.share.", "optimize.place.", "optimize.deduplicate.", "optimize.predicates.enabled",
      "optimize.limits.", "optimize.joins.").map(Prefix + _)

  /** What was set for this session, for the executor. */
  def settings: Map[String, String] =
    SealedConf.over(SQLConf.get.getAllConfs).filter { case (key, _) =>
      key == "spark.app.id" || key.startsWith(Prefix) && !PlanningOnly.exists(key.startsWith)
    } + (SQLConf.SESSION_LOCAL_TIMEZONE.key -> SQLConf.get.sessionLocalTimeZone)

  private def parse[T](name: String, expected: String)(read: String => Option[T]): T =
    read(text(name)).getOrElse(throw LlmErrors(
      "LLM_BAD_CONF", "key" -> (Prefix + name), "value" -> text(name), "detail" -> s"it must be $expected"))
}
