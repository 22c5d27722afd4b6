package io.sparkllm.catalyst.planner

import java.util.concurrent.ConcurrentHashMap
import java.util.{Collections, LinkedHashMap, Map => JMap, WeakHashMap}

import scala.jdk.CollectionConverters._

import com.fasterxml.jackson.databind.JsonNode
import io.sparkllm.catalyst.{Json, LlmConf, LlmErrors}
import io.sparkllm.catalyst.functions.{CallPlan, LlmCall}
import io.sparkllm.catalyst.python.{CallSpec, PythonInterpreter}
import io.sparkllm.catalyst.rules.{Answer, Ask}

import org.apache.spark.scheduler.{SparkListener, SparkListenerApplicationEnd}
import org.apache.spark.sql.SparkSession
import org.apache.spark.sql.catalyst.expressions.Or
import org.apache.spark.sql.catalyst.plans.logical.{Filter, LogicalPlan}

/** Gives the calls of an `Ask` their plan: the field order, the reasons that EXPLAIN shows, and an estimate. */
final case class CallPlanner(session: SparkSession) {
  import CallPlanner._

  /**
   * @param input the rows that the calls see, before any rewrite of calls below them
   */
  def apply(ask: Ask, input: LogicalPlan): Ask = {
    val plans = sampled(ask, input) match {
      case Right((sample, places)) => planned(ask.calls, sample, places)
      case Left(why) if LlmConf.optimizes("order") && LlmConf.text("dependencies").nonEmpty => declared(ask.calls, why)
      case Left(why) => Left(why)
    }
    var index = -1
    ask.mapCalls { call =>
      index += 1
      val plan = plans.fold(why => CallPlan(call.arguments.indices, Seq(s"fields as written: $why")), _(index))
      call.copy(params = call.params.copy(plan = Some(plan.copy(reasons =
        call.params.hints.reasons ++ switchedOff ++ plan.reasons))))
    }
  }

  private def switchedOff: Seq[String] =
    Seq("share" -> "equal calls are not shared", "place" -> "filters and limits act as Spark placed them",
      "predicates" -> "predicates are asked in the order of the text", "limits" -> "predicates do not stop at a LIMIT",
      "joins" -> "calls in a join's condition are asked about its pairs").collect {
      case (rewrite, effect) if !LlmConf.optimizes(rewrite) => s"$effect: spark.llm.optimize.$rewrite.enabled is false"
    }

  /** A sample of all arguments over the rows that need an answer, and where in it each call's are. */
  private def sampled(ask: Ask, input: LogicalPlan): Either[String, (ArgumentSample, Seq[Seq[Int]])] = {
    val arguments = ask.calls.flatMap(_.arguments).distinctBy(_.canonicalized)
    val place = arguments.map(_.canonicalized).zipWithIndex.toMap
    if (!LlmConf.optimizes("order")) Left("spark.llm.optimize.order.enabled is false")
    else if (arguments.isEmpty) Left("the call has no field")
    else if (input.isStreaming) Left("the input is a stream")
    else sampler(session).sample(arguments, needing(ask, input)).map(_ -> ask.calls.map(_.arguments.map(a => place(a.canonicalized))))
  }

  private def needing(ask: Ask, input: LogicalPlan): LogicalPlan = {
    val conditions = ask.answers.map(Answer.needed)
    if (conditions.exists(_.isEmpty)) input else Filter(conditions.flatten.distinctBy(_.canonicalized).reduce(Or(_, _)), input)
  }

  /** Without a sample, what is declared of the fields still says which of them go together. */
  private def declared(calls: Seq[LlmCall], why: String): Either[String, Seq[CallPlan]] =
    request(Map("calls" -> calls.map(CallSpec.of), "sql" -> calls.flatMap(_.origin.sqlText).headOption)).map { answer =>
      read(answer, Map.empty).map(plan => plan.copy(reasons = plan.reasons :+ s"no sample: $why"))
    }

  private def request(params: Map[String, Any]): Either[String, JsonNode] =
    process(session).request("plan", params, LlmConf.integer("planner.timeoutSeconds")) match {
      case Left(why) => Left(s"the planner failed: $why")
      case Right(answer) if answer.has("error") => Left(refused(answer.get("error")))
      case Right(answer) => Right(answer)
    }

  private def planned(calls: Seq[LlmCall], sample: ArgumentSample, places: Seq[Seq[Int]]): Either[String, Seq[CallPlan]] = {
    def counted[T](place: Seq[Int])(value: T) = Option.when(place.distinct.size == sample.columns.size)(value)
    val params = Map[String, Any](
      "calls" -> calls.map(CallSpec.of),
      "sample" -> Map("columns" -> places.map(_.map(sample.columns))),
      "rows_estimate" -> sample.rows,
      "distinct" -> places.map(place => counted(place)(sample.distinct)),
      "distinct_values" -> places.map(place => sample.distinctValues.flatMap(values => counted(place)(place.map(values)))),
      "streams" -> CallPlanner.tasks(session),
      "hosts" -> CallPlanner.hosts(session),
      "sql" -> calls.flatMap(_.origin.sqlText).headOption)
    request(params).map { answer =>
      for ((call, place) <- calls.zip(places)) samples.put(asked(Json.of(CallSpec.of(call))), place.map(sample.columns))
      read(answer, Map("distinct_bound" -> sample.distinctBound, "argument_bytes" -> sample.bytesPerRow))
    }
  }

  private def read(answer: JsonNode, known: Map[String, Double]): Seq[CallPlan] =
    answer.get("result").get("calls").elements.asScala.map { plan =>
      val estimate = plan.get("estimate").properties.asScala.map(e => e.getKey -> e.getValue.asDouble).toMap
      CallPlan(
        plan.get("order").elements.asScala.map(_.asInt).toSeq,
        plan.get("reasons").elements.asScala.map(_.asText).toSeq,
        estimate ++ known)
    }.toSeq

  /** A call that the planner finds unusable is the user's error; anything else only costs the plan. */
  private def refused(error: JsonNode): String = {
    val condition = error.get("condition").asText
    if (condition.startsWith("LLM_")) throw LlmErrors.verbatim(error.get("message").asText)
    s"the planner failed: ${error.get("message").asText}"
  }
}

object CallPlanner {
  private val MaxBroadcastBytes = 256L << 20
  private val MostlyDistinct = 0.9
  private val samplers = Collections.synchronizedMap(new WeakHashMap[SparkSession, ArgumentSampler]())
  private val KeptSamples = 16
  private val samples = Collections.synchronizedMap(new LinkedHashMap[JsonNode, Seq[Seq[String]]](KeptSamples, 0.75f, true) {
    override def removeEldestEntry(eldest: JMap.Entry[JsonNode, Seq[Seq[String]]]): Boolean = size > KeptSamples
  })
  private val processes = new ConcurrentHashMap[String, PlannerProcess]()

  /** Whether the answers to all distinct tuples are few enough to be broadcast. */
  def isSmall(ask: Ask): Boolean = {
    val estimate = ask.calls.head.params.plan.map(_.estimate).getOrElse(Map.empty)
    estimate.get("distinct_bound").exists { distinct =>
      val bytes = distinct * estimate.getOrElse("argument_bytes", 0.0)
      distinct <= LlmConf.integer("broadcastRows") && bytes <= MaxBroadcastBytes
    }
  }

  /** Whether joining answers back would cost more than it saves. Equal rows must meet side by side, so not without order. */
  def mostlyDistinct(ask: Ask): Boolean = LlmConf.optimizes("order") && {
    val estimate = ask.calls.head.params.plan.map(_.estimate).getOrElse(Map.empty)
    estimate.get("rows").exists(rows => rows >= LlmConf.integer("inPlaceRows") && estimate.getOrElse("distinct", 0.0) >= MostlyDistinct * rows)
  }

  /** Tasks that ask at once. */
  def tasks(session: SparkSession): Int = LlmConf.integer("partitions") match {
    case 0 => session.sparkContext.defaultParallelism // one wave: no task ends while the engine could use its rows
    case n => n
  }

  /** Hosts whose engines answer: those of the executors. */
  def hosts(session: SparkSession): Int =
    math.max(1, session.sparkContext.statusTracker.getExecutorInfos.map(_.host).distinct.length)

  /** After a query: what it measured, for the estimates of later ones. Returns at once. */
  def record(session: SparkSession, calls: Seq[JsonNode], measured: Map[String, Double]): Unit =
    process(session).tell("record", Map("calls" -> calls, "measured" -> measured))

  /** The arguments of a bound call that it was planned from, column by column, if they are still remembered. */
  def sampleOf(spec: JsonNode): Option[Seq[Seq[String]]] = Option(samples.get(asked(spec)))

  /** What identifies a call whatever its plan. */
  private def asked(spec: JsonNode): JsonNode =
    Json.of(Seq("function", "instruction", "fields", "options", "result_type").map(spec.get(_)))

  private def sampler(session: SparkSession): ArgumentSampler =
    samplers.computeIfAbsent(session, s => new ArgumentSampler(s.asInstanceOf[org.apache.spark.sql.classic.SparkSession]))

  /** The session's planner process. */
  def process(session: SparkSession): PlannerProcess =
    processes.computeIfAbsent(PythonInterpreter.current().executable, { python =>
      val started = new PlannerProcess(python)
      session.sparkContext.addSparkListener(new SparkListener {
        override def onApplicationEnd(end: SparkListenerApplicationEnd): Unit = {
          processes.remove(python)
          started.close()
        }
      })
      started
    })
}
