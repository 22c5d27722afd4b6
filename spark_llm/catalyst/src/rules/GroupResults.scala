package io.sparkllm.catalyst.rules

import io.sparkllm.catalyst.functions.LlmCall

import org.apache.spark.sql.catalyst.expressions._
import org.apache.spark.sql.catalyst.expressions.aggregate.AggregateExpression
import org.apache.spark.sql.catalyst.plans.logical._

/** Takes calls over groups out of an aggregate. */
object GroupResults {

  /** Whether a call stands over groups: neither inside an aggregate function nor in a grouping expression. */
  def ask(aggregate: Aggregate): Boolean = {
    val keys = aggregate.groupingExpressions.map(_.canonicalized).toSet
    def asks(e: Expression): Boolean = e match {
      case _: AggregateExpression => false
      case key if keys(key.canonicalized) => false
      case _: LlmCall => true
      case other => other.children.exists(asks)
    }
    aggregate.aggregateExpressions.exists(asks)
  }

  /** The aggregate computes keys and aggregate functions only; a projection above computes the rest. */
  def split(aggregate: Aggregate): Project = {
    val functions = aggregate.aggregateExpressions.flatMap(_.collect { case f: AggregateExpression => f })
    val computed = (aggregate.groupingExpressions ++ functions).map {
      case named: NamedExpression => named.canonicalized -> named
      case other => other.canonicalized -> Alias(other, other.prettyName)()
    }.distinctBy(_._1)
    val columns = computed.toMap
    val list = aggregate.aggregateExpressions.map(_.transformDown {
      case e if columns.contains(e.canonicalized) => columns(e.canonicalized).toAttribute
    })
    val named = list.zip(aggregate.aggregateExpressions).map {
      case (alias: Alias, _) => alias
      case (attribute: Attribute, original) if attribute.exprId == original.exprId => attribute
      case (other, original) => Alias(other, original.name)(exprId = original.exprId)
    }
    Project(named, aggregate.copy(aggregateExpressions = computed.map(_._2)))
  }
}
