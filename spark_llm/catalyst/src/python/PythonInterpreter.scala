package io.sparkllm.catalyst.python

import java.nio.charset.StandardCharsets.UTF_8
import java.util.concurrent.{ConcurrentHashMap, TimeUnit}

import io.sparkllm.catalyst.{LlmConf, LlmErrors}

import org.apache.spark.sql.internal.SQLConf

/** The Python that runs planner and bound functions, and its `major.minor`. */
final case class PythonInterpreter(executable: String, version: String)

object PythonInterpreter {
  private val probed = new ConcurrentHashMap[String, PythonInterpreter]()
  private val ProbeSeconds = 60
  private val Probe = "import sys, importlib.util as u; " +
    "print('%d.%d' % sys.version_info[:2], u.find_spec('spark_llm') is not None)"

  /** The session's interpreter, probed once for each executable. */
  def current(): PythonInterpreter = probed.computeIfAbsent(executable, probe)

  private def executable: String =
    (Seq(LlmConf.text("python"), SQLConf.get.getConfString("spark.pyspark.python", "")) ++
      sys.env.get("PYSPARK_PYTHON")).find(_.nonEmpty).getOrElse("python3")

  private def probe(python: String): PythonInterpreter = {
    val process =
      try new ProcessBuilder(python, "-c", Probe).redirectErrorStream(true).start()
      catch { case problem: java.io.IOException => throw unusable(python, problem.getMessage) }
    if (!process.waitFor(ProbeSeconds, TimeUnit.SECONDS)) {
      process.destroyForcibly()
      throw unusable(python, s"it did not answer within $ProbeSeconds s")
    }
    val answer = new String(process.getInputStream.readAllBytes(), UTF_8).trim
    answer.linesIterator.toSeq.lastOption.map(_.split(" ").toSeq) match {
      case Some(Seq(version, "True")) if recent(version) => PythonInterpreter(python, version)
      case Some(Seq(version, "True")) => throw unusable(python, s"it is Python $version")
      case Some(Seq(_, "False")) => throw unusable(python, "it has no package spark_llm")
      case _ => throw unusable(python, answer)
    }
  }

  private def recent(version: String): Boolean = version.split('.').map(_.toInt).toSeq match {
    case Seq(major, minor) => major == 3 && minor >= 11
    case _ => false
  }

  private def unusable(python: String, detail: String): Throwable =
    LlmErrors("LLM_PLANNER_PYTHON", "python" -> python, "detail" -> detail)
}
