package io.sparkllm.catalyst.planner

import org.apache.spark.sql.catalyst.InternalRow
import org.apache.spark.sql.catalyst.expressions.{Expression, Literal}
import org.apache.spark.sql.catalyst.expressions.codegen.CodegenFallback
import org.apache.spark.sql.catalyst.plans.physical.HashPartitioning
import org.apache.spark.sql.types.{DataType, IntegerType}
import org.apache.spark.unsafe.types.UTF8String

/**
 * The range of keys that a row belongs to, as a number which Spark's hash partitioning sends to a partition of its own.
 * Spark's range partitioning would run the input once more to find the bounds.
 *
 * @param children keys, strings; NULL comes first
 * @param bounds ascending, each the last key of its range
 * @param numbers one per range
 */
case class KeyRange(children: Seq[Expression], bounds: Seq[Seq[UTF8String]], numbers: Seq[Int])
    extends Expression with CodegenFallback {
  override def nullable: Boolean = false
  override def dataType: DataType = IntegerType
  override def prettyName: String = "key_range"
  override def toString: String = s"$prettyName(${children.mkString(", ")}, ${numbers.size})"
  override protected def withNewChildrenInternal(newChildren: IndexedSeq[Expression]): KeyRange = copy(newChildren)

  @transient private lazy val ascending = bounds.toIndexedSeq
  @transient private lazy val number = numbers.toArray

  override def eval(row: InternalRow): Any = {
    val key = children.map(_.eval(row).asInstanceOf[UTF8String])
    var (low, high) = (0, ascending.size)
    while (low < high) {
      val middle = (low + high) / 2
      if (KeyRange.compare(key, ascending(middle)) <= 0) high = middle else low = middle + 1
    }
    number(low)
  }
}

object KeyRange {

  /** Equally many of the `sample`'s keys, given column by column, in each of `parts` ranges. */
  def apply(keys: Seq[Expression], sample: Seq[Seq[String]], parts: Int): KeyRange = {
    val sorted = sample.map(_.map(UTF8String.fromString)).transpose.sortWith(compare(_, _) < 0)
    KeyRange(keys, (1 until parts).map(i => sorted(math.max(i * sorted.size / parts - 1, 0))), numbers(parts))
  }

  private def compare(left: Seq[UTF8String], right: Seq[UTF8String]): Int =
    left.iterator.zip(right).map {
      case (a, b) => if (a == null || b == null) Ordering.Boolean.compare(a != null, b != null) else a.binaryCompare(b)
    }.find(_ != 0).getOrElse(0)

  /** The least number of each partition. */
  private def numbers(parts: Int): Seq[Int] = {
    val of = Iterator.from(0).map { n =>
      HashPartitioning(Seq(Literal(n)), parts).partitionIdExpression.eval().asInstanceOf[Int] -> n
    }
    val found = scala.collection.mutable.Map.empty[Int, Int]
    while (found.size < parts) of.next() match { case (part, n) => found.getOrElseUpdate(part, n) }
    (0 until parts).map(found)
  }
}
