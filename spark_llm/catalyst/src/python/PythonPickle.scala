package io.sparkllm.catalyst.python

import java.io.ByteArrayOutputStream
import java.nio.{ByteBuffer, ByteOrder}
import java.nio.charset.StandardCharsets.UTF_8

/**
 * The few pickle opcodes (protocol 3) with which the JVM names a function of an importable Python module, so that no
 * Python driver and no cloudpickle is needed. Opcodes: https://docs.python.org/3/library/pickletools.html
 */
object PythonPickle {
  private val Module = "spark_llm.executor.udf"
  private val Function = "bind"

  /** The command of a Spark Python UDF: the pair (`bind(spec)`, return type). */
  def command(spec: String, returnTypeJson: String): Array[Byte] = {
    val out = new ByteArrayOutputStream()
    out.write(Array[Byte](0x80.toByte, 3)) // PROTO 3
    call(out, Module, Function, spec)
    call(out, "pyspark.sql.types", "_parse_datatype_json_string", returnTypeJson)
    out.write(Array[Byte](0x86.toByte, '.')) // TUPLE2, STOP
    out.toByteArray
  }

  /** The `spec` inside a command that this object wrote. */
  def spec(command: Array[Byte]): Option[String] = {
    val head = s"c$Module\n$Function\n".getBytes(UTF_8)
    if (!command.slice(2, 2 + head.length).sameElements(head)) None
    else {
      val at = 2 + head.length + 1
      val length = ByteBuffer.wrap(command, at, 4).order(ByteOrder.LITTLE_ENDIAN).getInt
      Some(new String(command, at + 4, length, UTF_8))
    }
  }

  /** GLOBAL, BINUNICODE, TUPLE1, REDUCE. */
  private def call(out: ByteArrayOutputStream, module: String, function: String, argument: String): Unit = {
    val text = argument.getBytes(UTF_8)
    out.write(s"c$module\n${function}\nX".getBytes(UTF_8))
    out.write(ByteBuffer.allocate(4).order(ByteOrder.LITTLE_ENDIAN).putInt(text.length).array())
    out.write(text)
    out.write(Array[Byte](0x85.toByte, 'R'))
  }
}
