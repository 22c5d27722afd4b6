package io.sparkllm.catalyst.report

import java.util.concurrent.atomic.AtomicBoolean

import io.sparkllm.catalyst.functions.LlmCall

import org.apache.spark.sql.SparkSession
import org.apache.spark.sql.catalyst.plans.logical.LogicalPlan
import org.apache.spark.sql.catalyst.rules.Rule
import org.apache.spark.sql.internal.SQLConf

/** Switches on EXPLAIN's section and the report with a session's first call, so that `spark.jars` alone is enough. */
case class PrepareSession(session: SparkSession) extends Rule[LogicalPlan] {
  private val done = new AtomicBoolean(false)

  override def apply(plan: LogicalPlan): LogicalPlan = {
    def asks = plan.exists(_.expressions.exists(_.exists(_.isInstanceOf[LlmCall])))
    if (!done.get && asks && done.compareAndSet(false, true)) {
      val providers = "spark.sql.extendedExplainProviders"
      if (SQLConf.get.getConfString(providers, "").isEmpty) {
        session.conf.set(providers, classOf[LlmExplain].getName)
      }
      session.asInstanceOf[org.apache.spark.sql.classic.SparkSession].listenerManager.register(new LlmReport)
    }
    plan
  }
}
