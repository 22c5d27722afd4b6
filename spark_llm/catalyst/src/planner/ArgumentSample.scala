package io.sparkllm.catalyst.planner

import scala.collection.mutable
import scala.util.control.NonFatal

import io.sparkllm.catalyst.LlmConf
import io.sparkllm.catalyst.rules.{Ask, Calls}

import org.apache.spark.sql.catalyst.InternalRow
import org.apache.spark.sql.catalyst.expressions.{Left => _, Right => _, _}
import org.apache.spark.sql.catalyst.plans.logical._
import org.apache.spark.sql.classic.SparkSession
import org.apache.spark.sql.execution.SQLExecution

/**
 * Some rows of calls' arguments, as the model would get them.
 *
 * @param columns one per argument, NULL as null
 * @param rows estimate for the whole input
 * @param exact whether `rows` is known; else it comes from sizes of files, which may be compressed
 */
final case class ArgumentSample(columns: Seq[Seq[String]], rows: Double, exact: Boolean) {
  private val size = columns.headOption.fold(0)(_.size)

  def bytesPerRow: Double = if (size == 0) 0 else columns.flatten.filter(_ != null).map(_.length.toDouble).sum / size

  /** What the number of distinct tuples will hardly exceed, where `distinct` is the estimate. */
  def distinctBound(distinct: Double): Double =
    if (2 * distinct <= size) 2 * distinct else if (exact) rows else ArgumentSample.Compression * rows
}

object ArgumentSample {
  private val Compression = 8.0
}

/** Takes samples, one bounded Spark job for each input, and keeps them for the session. */
final class ArgumentSampler(session: SparkSession) {
  import ArgumentSampler._

  private val taken = new mutable.LinkedHashMap[LogicalPlan, Either[String, ArgumentSample]]

  /** The sample of `arguments` over `input`, or in words why there is none. Never asks the model. */
  def sample(arguments: Seq[Expression], input: LogicalPlan): Either[String, ArgumentSample] = synchronized {
    val asked = Project(arguments.map(Alias(_, "argument")()), unasked(input))
    taken.getOrElseUpdate(asked.canonicalized, {
      if (taken.size >= Kept) taken.remove(taken.head._1)
      take(asked)
    })
  }

  private def take(plan: LogicalPlan): Either[String, ArgumentSample] = {
    val limit = LlmConf.integer("planner.sampleRows")
    if (limit == 0) Left("spark.llm.planner.sampleRows is 0")
    else if (Calls.under(plan)) Left("the input asks the model itself")
    else if (computed(plan) && size(plan) > MaxComputedBytes) Left("the input is large and must be computed as a whole")
    else try Right(run(plan, limit))
    catch { case NonFatal(problem) => Left(s"the sampling query failed (${problem.getClass.getSimpleName})") }
  }

  private def run(plan: LogicalPlan, limit: Int): ArgumentSample = {
    val limited = GlobalLimit(Literal(limit), LocalLimit(Literal(limit), plan))
    val execution = session.sessionState.executePlan(limited)
    val rows = bounded(SQLExecution.withNewExecutionId(execution, None)(execution.executedPlan.executeTake(limit)))
    val columns = plan.output.indices.map(i => rows.map(row => if (row.isNullAt(i)) null else row.getUTF8String(i).toString))
    val sample = ArgumentSample(columns, rows.size.toDouble, exact = rows.size < limit)
    if (sample.exact) sample else estimateRows(plan, sample)
  }

  private def estimateRows(plan: LogicalPlan, sample: ArgumentSample): ArgumentSample = {
    val known = plan.stats.rowCount.map(_.toDouble)
    val guessed = known.getOrElse(size(plan) / (sample.bytesPerRow + BytesPerValue * plan.output.size))
    val rows = plan.maxRows.fold(guessed)(most => math.min(guessed, most.toDouble))
    sample.copy(rows = math.max(rows, sample.rows), exact = known.isDefined)
  }
}

object ArgumentSampler {
  private val Kept = 64
  private val BytesPerValue = 8
  private val MaxSampleBytes = 32L << 20
  private val MaxComputedBytes = 256L << 20

  /** Rows up to a total size, the first always. */
  private def bounded(rows: Array[InternalRow]): Seq[InternalRow] = {
    var bytes = 0L
    rows.toSeq.takeWhile { row =>
      val fits = bytes < MaxSampleBytes
      bytes += (row match {
        case unsafe: UnsafeRow => unsafe.getSizeInBytes
        case _ => 0
      })
      fits
    }
  }

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
