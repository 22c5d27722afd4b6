package io.sparkllm.catalyst.report

import com.fasterxml.jackson.databind.JsonNode

/** What calls take, expected or measured. Tokens of prompts count those from the cache too. */
final case class Work(
    rows: Double, calls: Double, prompt: Double, cached: Double, output: Double, seconds: Option[Double], cost: Option[Double]) {

  def hitRate: Double = if (prompt > 0) cached / prompt else 0.0

  def words: String = {
    val money = cost.map(value => f", cost $value%.6f")
    val time = seconds.map(value => f", $value%.1f s")
    f"$rows%.0f rows, $calls%.0f distinct calls, $prompt%.0f prompt tokens, $cached%.0f of them cached " +
      f"(${100 * hitRate}%.1f %%), $output%.0f output tokens" + time.getOrElse("") + money.getOrElse("")
  }

  private def plus(other: Work): Work = Work(
    math.max(rows, other.rows), calls + other.calls, prompt + other.prompt, cached + other.cached, output + other.output,
    for (a <- seconds; b <- other.seconds) yield a + b, for (a <- cost; b <- other.cost) yield a + b)
}

object Work {

  /** The estimate of a call's plan. */
  def of(estimate: JsonNode): Work = {
    def number(name: String) = Option(estimate.get(name)).map(_.asDouble)
    def known(name: String) = number(name).getOrElse(0.0)
    Work(known("rows"), number("calls").getOrElse(known("distinct")), known("prompt_tokens"), known("cached_tokens"), known("output_tokens"),
      number("seconds"), number("cost"))
  }

  /** What all calls together are expected to take, if each has an estimate. */
  def expected(specs: Seq[JsonNode]): Option[Work] = {
    val estimates = specs.map(spec => Option(spec.get("plan")).flatMap(p => Option(p.get("estimate"))).filter(_.has("prompt_tokens")))
    Option.when(estimates.nonEmpty && estimates.forall(_.isDefined))(estimates.flatten.map(of).reduce(_.plus(_)))
  }
}
