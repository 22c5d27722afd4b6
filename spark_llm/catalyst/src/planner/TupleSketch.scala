package io.sparkllm.catalyst.planner

import org.apache.spark.sql.catalyst.InternalRow
import org.apache.spark.sql.catalyst.expressions.{XXH64, XxHash64Function}
import org.apache.spark.sql.types.StringType
import org.apache.spark.unsafe.types.UTF8String

/**
 * What is kept of the argument tuples of one partition; sketches of partitions merge into that of the whole input.
 *
 * The distinct tuples with the lowest hashes are a random sample of all distinct ones, and how low they are says how many
 * there are ("bottom-k": Cohen and Kaplan, PODC 2007); the same for the values of each column. So a sketch depends on the
 * rows only, not on how they are partitioned.
 */
final class TupleSketch(columns: Int, keptTuples: Int) extends Serializable {
  import TupleSketch._

  private var seen = 0L
  private var bytes = 0L
  private var full = false
  private val tuples = new java.util.TreeMap[Long, Tuple]
  private val values = Array.fill(columns)(new java.util.TreeSet[Long])
  private val filled = new Array[Boolean](columns)

  def add(row: InternalRow): this.type = {
    seen += 1
    var hash = Seed
    var i = 0
    while (i < columns) {
      val own = if (row.isNullAt(i)) i.toLong else XxHash64Function.hash(row.getUTF8String(i), StringType, Seed + i)
      keepValue(i, own >>> 1)
      hash = XXH64.hashLong(own, hash)
      i += 1
    }
    if (wants(hash >>> 1)) keep(hash >>> 1, Tuple(Array.tabulate(columns)(c =>
      if (row.isNullAt(c)) null else row.getUTF8String(c).copy()), 0L))
    Option(tuples.get(hash >>> 1)).foreach(_.rows += 1)
    this
  }

  def merge(other: TupleSketch): this.type = {
    seen += other.seen
    full ||= other.full
    other.tuples.forEach { (hash, tuple) =>
      if (tuples.containsKey(hash)) tuples.get(hash).rows += tuple.rows else if (wants(hash)) keep(hash, tuple)
    }
    // A tuple above the highest of a full part may be missing from it.
    Seq(this, other).filter(_.full).map(_.tuples).filterNot(_.isEmpty).map(_.lastKey).minOption.foreach { highest =>
      while (tuples.lastKey > highest) drop()
    }
    for (i <- 0 until columns) {
      other.values(i).forEach(hash => keepValue(i, hash))
      filled(i) ||= other.filled(i)
    }
    this
  }

  def rows: Long = seen

  /** Distinct tuples of the rows seen. */
  def distinct: Double = estimate(tuples.size, full, if (tuples.isEmpty) 0 else tuples.lastKey)

  /** Of the rows seen, the share whose tuple no other row has. */
  def unique: Double = {
    val kept = tuples.values.toArray(Array.empty[Tuple])
    kept.count(_.rows == 1).toDouble / math.max(kept.map(_.rows).sum, 1L)
  }

  /** Distinct values of each column in the rows seen. */
  def distinctValues: Seq[Double] = values.indices.map { i =>
    estimate(values(i).size, filled(i), if (values(i).isEmpty) 0 else values(i).last)
  }

  /** The sampled tuples, column by column, in an order of their own. */
  def sample: Seq[Seq[String]] = {
    val kept = tuples.values.toArray(Array.empty[Tuple])
    (0 until columns).map(i => kept.map(tuple => Option(tuple.values(i)).map(_.toString).orNull).toSeq)
  }

  private def wants(hash: Long): Boolean =
    !tuples.containsKey(hash) && (!full || tuples.isEmpty || hash < tuples.lastKey)

  private def keep(hash: Long, tuple: Tuple): Unit = {
    tuples.put(hash, tuple)
    bytes += tuple.bytes
    while (tuples.size > keptTuples || bytes > MaxBytes && tuples.size > 1) drop()
  }

  private def drop(): Unit = {
    bytes -= tuples.pollLastEntry().getValue.bytes
    full = true
  }

  private def keepValue(column: Int, hash: Long): Unit = {
    val kept = values(column)
    if ((!filled(column) || hash < kept.last) && kept.add(hash) && kept.size > KeptValues) {
      kept.pollLast()
      filled(column) = true
    }
  }
}

object TupleSketch {
  private val Seed = 42L
  private val KeptValues = 2048
  private val MaxBytes = 32L << 20

  /** `rows`: those seen with these values since the tuple was kept, so all of them. */
  private final case class Tuple(values: Array[UTF8String], var rows: Long) {
    def bytes: Long = values.filter(_ != null).map(_.numBytes.toLong).sum + 16L * values.length
  }

  private def estimate(kept: Int, more: Boolean, highest: Long): Double =
    if (!more || kept < 2) kept.toDouble else (kept - 1) / (highest.toDouble / Long.MaxValue)
}
