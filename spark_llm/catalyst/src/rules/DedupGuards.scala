package io.sparkllm.catalyst.rules

import org.apache.spark.sql.catalyst.expressions._
import org.apache.spark.sql.catalyst.plans.logical._

/** When the distinct arguments of a call may not, or need not, be asked apart from its rows; each answer is a reason. */
object DedupGuards {

  /** Each level reads its input twice, so the plan doubles with every level. */
  private val MaxNestedAsks = 7

  def reasonAgainst(ask: Ask, stopsEarly: Boolean): Option[String] =
    if (ask.isStreaming) Some("a stream cannot be read twice")
    else if (ask.calls.exists(_.params.stopAfter.isDefined)) Some("a LIMIT above stops early")
    else if (ask.answers.exists(!_.deterministic)) Some("the call is not deterministic (temperature > 0 without seed)")
    else if (stopsEarly) Some("a LIMIT above stops early")
    else unrepeatable(ask.child).orElse(nested(ask.child.collect { case inner: Ask => inner }))

  private def nested(below: Seq[Ask]): Option[String] =
    if (below.exists(_.rows.isEmpty)) Some("the input asks the model in place")
    else Option.when(below.size >= MaxNestedAsks)("too many calls depend on one another")

  /** Why two reads of `plan` may give other rows. */
  def unrepeatable(plan: LogicalPlan): Option[String] = plan.collectFirst {
    case _: GlobalLimit | _: LocalLimit | _: Offset | _: Tail =>
      "the input has a LIMIT, which may pick other rows when read again"
    case _: Sample => "the input is a sample, which may differ when read again"
    case _: MapInPandas | _: MapInArrow | _: MapPartitions | _: MapElements =>
      "the input runs code that may differ when run again"
    case op if op.expressions.exists(!_.deterministic) => "the input is not deterministic"
  }

  /** Whether no two rows have the same arguments, because they are the keys of a grouping. */
  def alreadyDistinct(ask: Ask): Boolean = ask.calls.forall { call =>
    val shown = ExpressionSet(call.arguments.flatMap(renderedAttribute))
    ask.child.distinctKeys.exists(key => key.nonEmpty && key.subsetOf(shown))
  }

  /** The column that an argument shows as it is. */
  private def renderedAttribute(argument: Expression): Option[Attribute] = argument match {
    case attribute: Attribute => Some(attribute)
    case rendered => rendered.collectFirst { case CreateNamedStruct(Seq(Literal(_, _), attribute: Attribute)) => attribute }
        .filter(attribute => rendered.references.toSeq == Seq(attribute))
  }
}
