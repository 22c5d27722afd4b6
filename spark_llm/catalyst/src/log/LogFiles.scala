package io.sparkllm.catalyst.log

import java.io.{FileNotFoundException, IOException}

import scala.util.control.NonFatal

import org.apache.hadoop.conf.Configuration
import org.apache.hadoop.fs.{FileStatus, FileSystem, Path}

import org.apache.spark.sql.SparkSession
import org.apache.spark.sql.catalyst.InternalRow
import org.apache.spark.sql.catalyst.expressions.Expression
import org.apache.spark.sql.classic.{SparkSession => ClassicSession}
import org.apache.spark.sql.catalyst.plans.logical.LogicalPlan
import org.apache.spark.sql.execution.datasources.{FileIndex, HadoopFsRelation, PartitionDirectory}
import org.apache.spark.sql.execution.datasources.parquet.ParquetFileFormat
import org.apache.spark.sql.functions.{col, first}
import org.apache.spark.sql.types.{BinaryType, StringType, StructType}

/**
 * The files of one call in the result log, as `spark_llm/result_log/files.py` names them.
 *
 * @param files those to read: whole, and not replaced by another one
 * @param torn how many have another length than their name says
 */
final case class LogFiles(files: Seq[FileStatus], answers: Long, torn: Int) {
  def isEmpty: Boolean = files.isEmpty

  /** Seconds since 1970 of the newest file. */
  def since: Double = files.map(_.getModificationTime / 1000.0).maxOption.getOrElse(0.0)

  /** One row for each identity: the identity and the answer. */
  def plan(session: SparkSession): LogicalPlan = {
    val schema = new StructType().add("identity", BinaryType).add("answer", StringType)
    val options = Map("ignoreCorruptFiles" -> "true", "ignoreMissingFiles" -> "true")
    val classic = session.asInstanceOf[ClassicSession]
    val relation = HadoopFsRelation(
      ListedFiles(files), new StructType(), schema, None, new ParquetFileFormat, options)(classic)
    val answers = classic.baseRelationToDataFrame(relation).groupBy(col("identity")).agg(first(col("answer")).as("answer"))
    answers.queryExecution.analyzed
  }
}

object LogFiles {
  private val Name = """p(\d+)-([0-9a-f]{16})-(\d+)-(\d+)-(\d+)-(\d+)\.parquet""".r

  private final case class Named(writer: String, first: Long, last: Long, answers: Long, size: Long, status: FileStatus)

  /** What the folder `call` of the log at `path` holds, or in words why this JVM cannot see it. */
  def list(path: String, call: String, conf: Configuration): Either[String, LogFiles] =
    try {
      val root = hadoopPath(path, conf)
      Right(current(root.getFileSystem(conf).listStatus(new Path(root, call)).toSeq))
    } catch {
      case _: FileNotFoundException => Right(LogFiles(Nil, 0, 0))
      case NonFatal(problem) => Left(s"Spark cannot read ${scheme(path)} paths (${problem.getClass.getSimpleName})")
    }

  private def current(statuses: Seq[FileStatus]): LogFiles = {
    val named = statuses.flatMap { status =>
      Name.findFirstMatchIn(status.getPath.getName).filter(_.matched == status.getPath.getName).map { m =>
        Named(m.group(2), m.group(3).toLong, m.group(4).toLong, m.group(5).toLong, m.group(6).toLong, status)
      }
    }
    val (whole, torn) = named.partition(file => file.size == file.status.getLen)
    val kept = whole.groupBy(_.writer).toSeq.sortBy(_._1).flatMap { case (_, files) =>
      files.sortBy(file => (file.first, -file.last)).foldLeft(List.empty[Named]) {
        case (last :: rest, file) if file.first >= last.first && file.last <= last.last => last :: rest
        case (before, file) => file :: before
      }
    }
    LogFiles(kept.map(_.status), kept.map(_.answers).sum, torn.size)
  }

  private def scheme(path: String): String = path.takeWhile(_ != ':') + ":"

  /** The same place for Hadoop: a plain path is a local one, and `s3:` is `s3a:` where only that is installed. */
  private def hadoopPath(path: String, conf: Configuration): Path = {
    val plain = path.takeWhile(_ != '?')
    if (plain.startsWith("/")) new Path("file://" + plain)
    else if (plain.startsWith("s3:") && !installed("s3", conf)) new Path("s3a:" + plain.stripPrefix("s3:"))
    else new Path(plain)
  }

  private def installed(scheme: String, conf: Configuration): Boolean =
    try FileSystem.getFileSystemClass(scheme, conf) != null
    catch { case _: IOException => false }
}

/** Files that are listed already; equal for equal files, so that equal subplans are computed once. */
case class ListedFiles(files: Seq[FileStatus]) extends FileIndex {
  override def rootPaths: Seq[Path] = files.map(_.getPath)
  override def listFiles(partitionFilters: Seq[Expression], dataFilters: Seq[Expression]): Seq[PartitionDirectory] =
    Seq(PartitionDirectory(InternalRow.empty, files.toArray))
  override def inputFiles: Array[String] = files.map(_.getPath.toString).toArray
  override def refresh(): Unit = ()
  override def sizeInBytes: Long = files.map(_.getLen).sum
  override def partitionSchema: StructType = new StructType()
}
