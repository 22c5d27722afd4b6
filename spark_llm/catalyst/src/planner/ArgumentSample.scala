package io.sparkllm.catalyst.planner

import scala.collection.mutable
import scala.util.control.NonFatal

import io.sparkllm.catalyst.LlmConf
import io.sparkllm.catalyst.rules.{Ask, Calls}

import org.apache.spark.rdd.RDD
import org.apache.spark.rdd.PartitionPruningRDD
import org.apache.spark.sql.catalyst.InternalRow
import org.apache.spark.sql.catalyst.expressions.{Left => _, Right => _, _}
import org.apache.spark.sql.catalyst.plans.logical._
import org.apache.spark.sql.classic.SparkSession
import org.apache.spark.sql.execution.SQLExecution

/**
 * Some distinct tuples of calls' arguments, as the model would get them.
 *
 * @param columns one per argument, NULL as null
 * @param rows of the whole input
 * @param distinct tuples of the whole input
 * @param distinctValues of each column of the whole input, where all of it was read
 */
final case class ArgumentSample(
    columns: Seq[Seq[String]], rows: Double, distinct: Double, distinctValues: Option[Seq[Double]]) {
  private val size = columns.headOption.fold(0)(_.size)

  def bytesPerRow: Double = if (size == 0) 0 else columns.flatten.filter(_ != null).map(_.length.toDouble).sum / size

  /** What the number of distinct tuples will hardly exceed. */
  def distinctBound: Double = if (distinctValues.isDefined) 1.2 * distinct else ArgumentSample.Unread * distinct
}

object ArgumentSample {
  private val Unread = 4.0
}

/** Takes samples, one bounded Spark job for each input, and keeps them for the session. */
final class ArgumentSampler(session: SparkSession) {
  import ArgumentSampler._

  private val taken = new mutable.LinkedHashMap[(LogicalPlan, Int), Either[String, ArgumentSample]]

  /** The sample of `arguments` over `input`, or in words why there is none. Never asks the model. */
  def sample(arguments: Seq[Expression], input: LogicalPlan): Either[String, ArgumentSample] = synchronized {
    val asked = Project(arguments.map(Alias(_, "argument")()), unasked(input))
    taken.getOrElseUpdate((asked.canonicalized, LlmConf.integer("planner.sampleRows")), {
      if (taken.size >= Kept) taken.remove(taken.head._1)
      take(asked)
    })
  }

  private def take(plan: LogicalPlan): Either[String, ArgumentSample] = {
    val limit = LlmConf.integer("planner.sampleRows")
    if (limit == 0) Left("spark.llm.planner.sampleRows is 0")
    else if (Calls.under(plan)) Left("the input asks the model itself")
    else if (computed(plan) && size(plan) > LlmConf.number("planner.scanBytes")) Left("the input is large and must be computed as a whole")
    else try Right(run(plan, limit))
    catch { case NonFatal(problem) => Left(s"the sampling query failed (${problem.getClass.getSimpleName})") }
  }

  /** Reads all of a small input; of a large one as many partitions, evenly spread, as may be read. */
  private def run(plan: LogicalPlan, limit: Int): ArgumentSample = {
    val execution = session.sessionState.executePlan(plan)
    SQLExecution.withNewExecutionId(execution, None) {
      val all = execution.toRdd
      val share = math.min(1.0, LlmConf.number("planner.scanBytes") / math.max(size(plan), 1.0))
      val parts = math.max(1, math.floor(all.getNumPartitions * share).toInt)
      val read = if (share == 1.0) all else spread(all, parts)
      summary(sketch(read, plan.output.size, limit), if (share == 1.0) 1.0 else parts.toDouble / all.getNumPartitions, plan)
    }
  }

  private def summary(sketch: TupleSketch, read: Double, plan: LogicalPlan): ArgumentSample = {
    if (read == 1.0) ArgumentSample(sketch.sample, sketch.rows.toDouble, math.min(sketch.distinct, sketch.rows.toDouble), Some(sketch.distinctValues))
    else {
      val rows = plan.stats.rowCount.fold(sketch.rows / read)(_.toDouble)
      // Haas et al., VLDB 1995, as in optimizer/statistics.py
      val distinct = sketch.distinct / math.max(1 - (1 - read) * sketch.unique, read)
      ArgumentSample(sketch.sample, rows, math.min(distinct, rows), None)
    }
  }
}

object ArgumentSampler {
  private val Kept = 64

  private def spread(rows: RDD[InternalRow], parts: Int): RDD[InternalRow] = {
    val every = rows.getNumPartitions.toDouble / parts
    val chosen = (0 until parts).map(i => (i * every).toInt).toSet
    PartitionPruningRDD.create(rows, chosen.contains)
  }

  private def sketch(rows: RDD[InternalRow], columns: Int, limit: Int): TupleSketch =
    if (rows.getNumPartitions == 0) new TupleSketch(columns, limit)
    else rows.mapPartitions { part =>
      Iterator(part.foldLeft(new TupleSketch(columns, limit))((sketch, row) => sketch.add(row)))
    }.treeReduce((left, right) => left.merge(right))

  private def size(plan: LogicalPlan): Double = plan.collectLeaves().map(_.stats.sizeInBytes).sum.toDouble

  /** Whether a few rows cost as much as all. */
  private def computed(plan: LogicalPlan): Boolean = plan.exists {
    case _: Join | _: Aggregate | _: Window | _: RepartitionOperation => true
    case Sort(_, global, _, _) => global
    case _ => false
  }

  /** `plan` with NULL for answers, and without the filters that look at them. */
  private def unasked(plan: LogicalPlan): LogicalPlan = {
    var unknown = AttributeSet.empty
    def known(e: Expression) = e.references.intersect(unknown).isEmpty
    plan.transformUp {
      case ask: Ask =>
        unknown ++= AttributeSet(ask.answers.map(_.toAttribute))
        val nulls = ask.answers.map(a => Alias(Literal(null, a.dataType), a.name)(exprId = a.exprId))
        Project(ask.child.output ++ nulls, ask.child)
      case project: Project =>
        unknown ++= AttributeSet(project.projectList.filterNot(known).map(_.toAttribute))
        project
      case Filter(condition, child) if !known(condition) => child
    }
  }
}
