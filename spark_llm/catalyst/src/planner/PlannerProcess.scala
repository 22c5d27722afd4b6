package io.sparkllm.catalyst.planner

import java.io.{DataInputStream, DataOutputStream, IOException}
import java.nio.charset.StandardCharsets.UTF_8
import java.util.concurrent.{Executors, ThreadFactory, TimeoutException, TimeUnit}

import scala.concurrent.{Await, ExecutionContext, Future}
import scala.concurrent.duration.Duration

import com.fasterxml.jackson.databind.JsonNode
import io.sparkllm.catalyst.Json

/**
 * A resident `python -m spark_llm.planner`: frames of a 4-byte big-endian length and UTF-8 JSON over stdio. It
 * ends when its stdin does, so at the latest with this JVM.
 */
final class PlannerProcess(python: String) {
  private val threads = Executors.newSingleThreadExecutor(PlannerProcess.Daemons)
  private implicit val context: ExecutionContext = ExecutionContext.fromExecutor(threads)
  private var process: Option[Process] = None
  private var requests = 0L

  /** The answer's `result` or `error` member, or in words why there is none. One request at a time. */
  def request(method: String, params: Any, timeoutSeconds: Int): Either[String, JsonNode] = synchronized {
    requests += 1
    val frame = Json.text(Map[String, Any]("id" -> requests, "method" -> method, "params" -> params))
    try Right(Await.result(Future(exchange(frame)), Duration(timeoutSeconds, TimeUnit.SECONDS)))
    catch {
      case _: TimeoutException => failed(s"it took more than $timeoutSeconds s")
      case problem: IOException => failed(problem.getClass.getSimpleName)
    }
  }

  /** A request whose answer nobody waits for. */
  def tell(method: String, params: Any): Unit = {
    val later = Future(request(method, params, PlannerProcess.TellSeconds))(PlannerProcess.Tellers)
    later.failed.foreach(problem => System.err.println(s"spark-llm: nothing recorded: $problem"))(PlannerProcess.Tellers)
  }

  /** Ends the process; the next request starts another. */
  def close(): Unit = synchronized {
    process.foreach(_.destroy())
    process = None
  }

  private def failed(reason: String): Left[String, JsonNode] = {
    close() // what it would still answer belongs to this request
    Left(reason)
  }

  private def exchange(frame: String): JsonNode = {
    val running = process.filter(_.isAlive).getOrElse(start())
    val body = frame.getBytes(UTF_8)
    val out = new DataOutputStream(running.getOutputStream)
    out.writeInt(body.length)
    out.write(body)
    out.flush()
    val in = new DataInputStream(running.getInputStream)
    Json.parse(new String(in.readNBytes(in.readInt()), UTF_8))
  }

  private def start(): Process = {
    val started = new ProcessBuilder(python, "-m", "spark_llm.planner")
      .redirectError(ProcessBuilder.Redirect.INHERIT).start()
    process = Some(started)
    started
  }
}

object PlannerProcess {
  private val TellSeconds = 20
  private val Daemons: ThreadFactory = task => {
    val thread = new Thread(task, "spark-llm planner")
    thread.setDaemon(true)
    thread
  }
  private val Tellers = ExecutionContext.fromExecutor(Executors.newSingleThreadExecutor(Daemons))
}
