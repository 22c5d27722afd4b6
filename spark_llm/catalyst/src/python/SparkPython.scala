package org.apache.spark.sql.sparkllm

import java.util.{ArrayList => JArrayList, HashMap => JHashMap}

import org.apache.spark.api.python.{PythonBroadcast, SimplePythonFunction}
import org.apache.spark.broadcast.Broadcast
import org.apache.spark.sql.catalyst.expressions.{Expression, PythonUDF}
import org.apache.spark.sql.types.DataType

/** The one door to Spark's own Python classes, which are private to Spark's packages. */
object SparkPython {

  /** A stock Python UDF. `udfDeterministic` is false: else later batches would substitute a shared answer back. */
  def udf(
      name: String,
      command: Array[Byte],
      python: String,
      version: String,
      dataType: DataType,
      arguments: Seq[Expression],
      evalType: Int): PythonUDF = {
    val function = SimplePythonFunction(
      command.toIndexedSeq, new JHashMap[String, String](), new JArrayList[String](), python, version,
      new JArrayList[Broadcast[PythonBroadcast]](), null)
    PythonUDF(name, function, dataType, arguments, evalType, udfDeterministic = false)
  }

  def command(udf: PythonUDF): Array[Byte] = udf.func.command.toArray
}
