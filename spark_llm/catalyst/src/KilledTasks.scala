package io.sparkllm.catalyst

import java.io.IOException
import java.nio.file.{Files, Path}
import java.util.concurrent.ConcurrentHashMap

import org.apache.spark.TaskContext

/**
 * Tells Python workers that their task was killed. Spark ends them only after it has looked (every two seconds) and
 * waited (`spark.python.task.killTimeout`), and the engine would compute for nobody meanwhile. The sign is a file in the
 * worker's folder, which `executor/kill_watch.py` looks for.
 */
private[catalyst] class KilledTasks(lease: () => Option[Path]) {
  private val running = ConcurrentHashMap.newKeySet[TaskContext]()

  /** To be called in the thread of a task that begins. */
  def started(context: TaskContext): Unit = {
    running.add(context)
    context.addTaskCompletionListener[Unit] { ended =>
      running.remove(ended)
      sign(ended).foreach(Files.deleteIfExists(_))
    }
  }

  /** To be called often. Nothing is written where there is no worker: its folder is the worker's to create. */
  def look(): Unit = running.forEach { context =>
    if (context.isInterrupted()) sign(context).filter(file => Files.isDirectory(file.getParent.getParent)).foreach { file =>
      try {
        if (!Files.isDirectory(file.getParent)) Files.createDirectory(file.getParent)
        if (!Files.exists(file)) Files.createFile(file)
      } catch {
        case problem: IOException => System.err.println(s"spark-llm: a killed task was not announced: $problem")
      }
      if (context.isCompleted()) Files.deleteIfExists(file)
    }
  }

  /** Named like the application's lease, and by the task. */
  private def sign(context: TaskContext): Option[Path] = lease().map { file =>
    file.getParent.resolveSibling("killed").resolve(s"${file.getFileName}-${context.taskAttemptId()}")
  }
}
