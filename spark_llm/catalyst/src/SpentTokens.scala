package io.sparkllm.catalyst

import java.net.InetAddress
import java.nio.charset.StandardCharsets.UTF_8
import java.nio.file.{Files, Path, StandardCopyOption}
import java.util.{LinkedHashMap, Map => JMap}

import scala.collection.mutable
import scala.jdk.CollectionConverters._
import scala.util.control.NonFatal

import org.apache.spark.api.plugin.PluginContext

/** What `query` has taken on the host of `folder`, as "prompt cached output". */
private[catalyst] case class Spent(query: String, folder: String, tokens: String) extends Serializable

/** On the driver: what each query with a budget has taken, by host. */
private[catalyst] class Ledger {
  private val Kept = 256
  private val queries = new LinkedHashMap[String, mutable.Map[String, Seq[Long]]](Kept, 0.75f, true) {
    override def removeEldestEntry(eldest: JMap.Entry[String, mutable.Map[String, Seq[Long]]]): Boolean = size > Kept
  }

  /** Notes it, and gives the sum of the other hosts. */
  def add(spent: Spent): String = synchronized {
    val hosts = queries.computeIfAbsent(spent.query, _ => mutable.Map.empty)
    hosts(spent.folder) = spent.tokens.split(' ').toSeq.map(_.toLong)
    (hosts - spent.folder).values.foldLeft(Seq(0L, 0L, 0L))((sum, host) => sum.zip(host).map { case (a, b) => a + b }).mkString(" ")
  }
}

/**
 * On an executor: carries what Python workers write of their queries to the driver, and the sum of the other hosts back
 * (`executor/spending.py`). A file changes as long as a task of its query asks.
 */
private[catalyst] class SpentTokens(context: PluginContext, lease: () => Option[Path]) {
  private val StaleMillis = 600000L
  private lazy val hostName = InetAddress.getLocalHost.getHostName // an executor's plugin context has no address
  private val told = mutable.Map.empty[Path, Long]

  /** To be called often, by one thread. */
  def look(): Unit = for (file <- lease()) {
    val folder = file.getParent.resolveSibling("spent")
    if (Files.isDirectory(folder)) {
      val prefix = s"${file.getFileName}@"
      val listed = Files.list(folder)
      try listed.iterator.asScala.filter(_.getFileName.toString.startsWith(prefix)).toList.foreach(carry)
      finally listed.close()
    }
  }

  private def carry(file: Path): Unit = try {
    val changed = Files.getLastModifiedTime(file).toMillis
    if (System.currentTimeMillis() - changed > StaleMillis) {
      Files.deleteIfExists(file)
      told -= file
    } else if (file.toString.endsWith(".here") && !told.get(file).contains(changed)) {
      val query = file.getFileName.toString.stripSuffix(".here")
      val host = s"$hostName:${file.getParent}"
      val others = context.ask(Spent(query, host, Files.readString(file).trim)).toString
      val draft = Files.createTempFile(file.getParent, "draft", "")
      Files.write(draft, others.getBytes(UTF_8))
      Files.move(draft, file.resolveSibling(s"$query.elsewhere"), StandardCopyOption.ATOMIC_MOVE)
      told(file) = changed
    }
  } catch {
    case NonFatal(problem) => // the file has just been replaced, or the driver is gone: the host counts on
      System.err.println(s"spark-llm: tokens of a query were not told to the driver: ${problem.getClass.getSimpleName}")
  }
}
