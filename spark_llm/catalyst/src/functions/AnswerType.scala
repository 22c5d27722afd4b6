package io.sparkllm.catalyst.functions

import org.apache.spark.sql.types._

/** Types that an answer can have: those for which a JSON text stands. */
object AnswerType {
  val Accepted = "STRING, BOOLEAN, TINYINT to BIGINT, FLOAT, DOUBLE, DECIMAL, DATE, TIMESTAMP, " +
    "and ARRAY, STRUCT and MAP<STRING, ...> of these"

  def allows(dataType: DataType): Boolean = dataType match {
    case StructType(fields) =>
      fields.nonEmpty && fields.map(_.name).distinct.length == fields.length && fields.forall(f => allows(f.dataType))
    case ArrayType(element, _) => allows(element)
    case MapType(_: StringType, value, _) => allows(value)
    case _: StringType | _: NumericType | BooleanType | DateType | TimestampType | TimestampNTZType => true
    case _ => false
  }
}
