package io.sparkllm.catalyst.rules

import java.util.HexFormat

import scala.collection.mutable
import scala.jdk.CollectionConverters._

import com.fasterxml.jackson.databind.JsonNode
import io.sparkllm.catalyst.{LlmConf, LlmErrors}
import io.sparkllm.catalyst.functions.{CallLog, CallPlan, LlmCall}
import io.sparkllm.catalyst.log.{AnswerIdentity, LogFiles}
import io.sparkllm.catalyst.planner.CallPlanner
import io.sparkllm.catalyst.python.CallSpec

import org.apache.spark.sql.SparkSession
import org.apache.spark.sql.catalyst.expressions.{Left => _, Right => _, _}
import org.apache.spark.sql.catalyst.plans.LeftOuter
import org.apache.spark.sql.catalyst.plans.logical._
import org.apache.spark.sql.catalyst.rules.Rule

/**
 * Joins the answers of the result log to the tuples that would be asked:
 * {{{
 *   Ask(calls, arranged(tuples))
 *     ->  Ask(calls with the known answer as an argument, arranged(tuples LEFT JOIN log ON identity(arguments) = identity))
 * }}}
 * The bound function asks for the rows without a known answer only. Calls that are asked in place are not joined, since
 * the join would read all rows first: their tasks look the answers up.
 */
case class ReadResultLog(session: SparkSession) extends Rule[LogicalPlan] {
  import ReadResultLog._

  override def apply(plan: LogicalPlan): LogicalPlan = {
    val path = LlmConf.text("resultLog.path")
    if (path.isEmpty || !plan.exists(reads)) plan
    else {
      // One listing for all copies of a call: they must stay equal.
      val listed = mutable.Map.empty[String, Either[String, LogFiles]]
      def list(call: String) =
        listed.getOrElseUpdate(call, LogFiles.list(path, call, session.sessionState.newHadoopConf()))
      plan.transformUp { case ask: Ask if reads(ask) => read(ask, list) }
    }
  }

  private def reads(plan: LogicalPlan): Boolean = plan match {
    case ask: Ask => ask.calls.exists(call => call.params.deterministic && call.params.log.isEmpty && call.params.terms.isEmpty)
    case _ => false
  }

  private def read(ask: Ask, list: String => Either[String, LogFiles]): LogicalPlan = {
    val places = locate(ask.calls)
    var child = ask.child
    var known = Seq.empty[Attribute]
    var index = -1
    val logged = ask.mapCalls { call =>
      index += 1
      val files = places(index).flatMap(place => list(place.folder).map(place -> _))
      if (!call.params.deterministic || call.params.terms.nonEmpty) call // terms are looked up by their tasks
      else files match {
        case Left(why) => said(call, s"result log: looked up in tasks: $why")
        case Right((place, found)) =>
          warn(found)
          val joins = !found.isEmpty && call.deterministic && isArranged(ask.child)
          val argument = if (!joins) None else {
            val (joined, answer) = join(child, call, place, found)
            child = joined
            known :+= answer
            Some(answer)
          }
          val log = CallLog(place.folder, if (joins) found.since else 0.0, joins)
          val words = describe(found, joins)
          said(call.withArguments(call.arguments ++ argument, call.params.copy(log = Some(log))), words, found.answers)
      }
    }
    Project(ask.output, logged.copy(child = sortAsked(child, known)))
  }

  /** Known rows are not asked, so they come first, unsorted. */
  private def sortAsked(child: LogicalPlan, known: Seq[Attribute]): LogicalPlan = child match {
    case sort: Sort if known.nonEmpty =>
      val asked = known.map(IsNull(_)).reduce[Expression](Or(_, _))
      sort.copy(order = sort.order.map(o => o.copy(child = If(asked, o.child, Literal(null, o.child.dataType)))))
    case _ => child
  }

  private def said(call: LlmCall, reason: String, answers: Long = 0): LlmCall = {
    val plan = call.params.plan.getOrElse(CallPlan(call.params.fields.indices))
    val estimate = plan.estimate ++ Option.when(answers > 0)("logged" -> answers.toDouble)
    call.copy(params = call.params.copy(plan = Some(plan.copy(reasons = plan.reasons :+ reason, estimate = estimate))))
  }

  private def describe(found: LogFiles, joins: Boolean): String = {
    val torn = if (found.torn == 0) "" else s", ${found.torn} torn files ignored"
    if (found.isEmpty) s"result log: no answer of this call yet$torn"
    else if (joins) s"result log: joined, at most ${found.answers} answers in ${found.files.size} files$torn"
    else s"result log: looked up in tasks, at most ${found.answers} answers in ${found.files.size} files$torn"
  }

  private def warn(found: LogFiles): Unit =
    if (found.torn > 0) System.err.println(s"spark-llm: result log: ${found.torn} torn files ignored")

  /** Where the calls' answers lie, or in words why that is not known. */
  private def locate(calls: Seq[LlmCall]): Seq[Either[String, Place]] = {
    val params = Map("calls" -> calls.map(CallSpec.of))
    CallPlanner.process(session).request("log", params, LlmConf.integer("planner.timeoutSeconds")) match {
      case Left(why) => calls.map(_ => Left(s"the planner failed: $why"))
      case Right(answer) if answer.has("error") => calls.map(_ => Left("the planner failed"))
      case Right(answer) if answer.get("result").has("refused") =>
        throw LlmErrors.verbatim(answer.get("result").get("refused").asText)
      case Right(answer) => answer.get("result").get("calls").elements.asScala.map(place).toSeq
    }
  }

  private def place(node: JsonNode): Either[String, Place] =
    if (node.has("unseen")) Left(node.get("unseen").asText)
    else {
      def numbers(name: String) = node.get(name).elements.asScala.map(_.asInt).toSeq
      Right(Place(node.get("folder").asText, HexFormat.of().parseHex(node.get("base").asText), numbers("fields"),
        numbers("unordered").toSet))
    }

  private def isArranged(child: LogicalPlan): Boolean = child match {
    case Sort(_, false, RepartitionByExpression(_, _, _, _), _) => true
    case _: RepartitionByExpression => true
    case _ => false
  }

  /** The tuples below their arrangement, with the log's answers. */
  private def join(child: LogicalPlan, call: LlmCall, place: Place, found: LogFiles): (LogicalPlan, Attribute) = child match {
    case sort: Sort =>
      val (below, answer) = join(sort.child, call, place, found)
      (sort.copy(child = below), answer)
    case ranges: RepartitionByExpression =>
      val (below, answer) = join(ranges.child, call, place, found)
      (ranges.copy(child = below), answer)
    case tuples =>
      val identity = AnswerIdentity(place.base, place.fields.map(call.arguments(_)),
        place.fields.indices.filter(i => place.unordered(place.fields(i))).toSet)
      val column = Alias(identity, "identity")()
      val log = found.plan(session)
      val (key, answer) = (log.output.head, log.output.last)
      val left = Project(tuples.output :+ column, tuples)
      val joined = Join(left, log, LeftOuter, Some(EqualTo(column.toAttribute, key)), JoinHint.NONE)
      (Project(tuples.output :+ answer, joined), answer)
  }
}

object ReadResultLog {

  /** A call's folder in the log, and how the identities of its rows are computed (`optimizer/identity.py`). */
  private final case class Place(folder: String, base: Array[Byte], fields: Seq[Int], unordered: Set[Int])
}
