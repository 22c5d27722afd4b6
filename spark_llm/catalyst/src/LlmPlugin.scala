package io.sparkllm.catalyst

import java.io.IOException
import java.nio.file.{Files, Path, Paths}
import java.nio.file.attribute.FileTime
import java.util.{Map => JMap}
import java.util.concurrent.{Executors, TimeUnit}

import scala.jdk.CollectionConverters._

import org.apache.spark.{SparkConf, TaskContext}
import org.apache.spark.api.plugin.{DriverPlugin, ExecutorPlugin, PluginContext, SparkPlugin}

/**
 * `spark.plugins=io.sparkllm.catalyst.LlmPlugin` keeps a host's engine worker alive as long as the executor, and makes a
 * query's budget one for all hosts.
 */
class LlmPlugin extends SparkPlugin {
  override def driverPlugin(): DriverPlugin = new DriverPlugin {
    private val ledger = new Ledger
    override def receive(message: AnyRef): AnyRef = ledger.add(message.asInstanceOf[Spent])
  }
  override def executorPlugin(): ExecutorPlugin = new WorkerKeeper
}

/**
 * Renews the application's lease of the worker, announces killed tasks, and starts the worker first where
 * `spark.llm.worker.eager` says so.
 */
class WorkerKeeper extends ExecutorPlugin {
  private val RenewSeconds = 5L
  private val LookMillis = 100L
  private val timer = Executors.newScheduledThreadPool(2, { (task: Runnable) =>
    val thread = new Thread(task, "spark-llm lease")
    thread.setDaemon(true)
    thread
  })
  private var conf = new SparkConf(false)
  private val killed = new KilledTasks(() => WorkerKeeper.lease(conf))

  override def init(context: PluginContext, extraConf: JMap[String, String]): Unit = {
    conf = context.conf()
    if (setting(conf, "worker.eager").toBoolean) startWorker(context)
    timer.scheduleAtFixedRate(() => renew(), 0, RenewSeconds, TimeUnit.SECONDS)
    timer.scheduleWithFixedDelay(() => killed.look(), LookMillis, LookMillis, TimeUnit.MILLISECONDS)
    val spent = new SpentTokens(context, () => WorkerKeeper.lease(conf))
    timer.scheduleWithFixedDelay(() => spent.look(), LookMillis, LookMillis, TimeUnit.MILLISECONDS)
  }

  override def onTaskStart(): Unit = Option(TaskContext.get()).foreach(killed.started)

  override def shutdown(): Unit = {
    timer.shutdownNow()
    WorkerKeeper.lease(conf).foreach(Files.deleteIfExists(_))
  }

  /** Does nothing while there is no worker: its folder is the worker's to create. */
  private def renew(): Unit = WorkerKeeper.lease(conf).filter(file => Files.isDirectory(file.getParent.getParent)).foreach { file =>
    try {
      if (!Files.isDirectory(file.getParent)) Files.createDirectory(file.getParent)
      if (!Files.exists(file)) Files.createFile(file)
      Files.setLastModifiedTime(file, FileTime.fromMillis(System.currentTimeMillis()))
    } catch {
      case problem: IOException => System.err.println(s"spark-llm: the worker's lease was not renewed: $problem")
    }
  }

  private def startWorker(context: PluginContext): Unit = {
    val python = Seq(setting(conf, "python"), conf.get("spark.pyspark.python", ""), sys.env.getOrElse("PYSPARK_PYTHON", ""))
      .find(_.nonEmpty).getOrElse("python3")
    val options = Tables.confKeys("spark.llm.worker.").filterNot(_.endsWith(".eager")).map { key =>
      s"--${key.split('.').last.replaceAll("([A-Z])", "-$1").toLowerCase}=${conf.get(key, Tables.confDefault(key))}"
    }
    val command = Seq(python, "-m", "spark_llm.serving.worker.ensure") ++ options
    val builder = new ProcessBuilder(command.asJava).redirectOutput(ProcessBuilder.Redirect.DISCARD)
      .redirectError(ProcessBuilder.Redirect.INHERIT)
    Option(context.resources().get("gpu")).foreach { gpus =>
      builder.environment().put("CUDA_VISIBLE_DEVICES", gpus.addresses.mkString(","))
    }
    builder.start() // not waited for: the first call waits for the worker where it needs it
  }

  private def setting(conf: SparkConf, name: String): String = WorkerKeeper.setting(conf, name)
}

object WorkerKeeper {
  private def setting(conf: SparkConf, name: String): String =
    conf.get(s"spark.llm.$name", Tables.confDefault(s"spark.llm.$name"))

  /** The file that `serving/worker/leases.py` touches for an application; none before a local one has its id. */
  def lease(conf: SparkConf): Option[Path] = conf.getOption("spark.app.id").map { application =>
    val folder = Some(setting(conf, "worker.dir")).filter(_.nonEmpty).map(Paths.get(_))
      .orElse(sys.env.get("XDG_RUNTIME_DIR").map(Paths.get(_, "spark-llm")))
      .getOrElse(Paths.get(sys.env.getOrElse("TMPDIR", "/tmp"), s"spark-llm-${userId()}"))
    folder.resolve("leases").resolve(application.replaceAll("[^\\w.-]", "_"))
  }

  private def userId(): Any = Files.getAttribute(Paths.get("/proc/self"), "unix:uid")
}
