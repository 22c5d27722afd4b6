package io.sparkllm.catalyst.analysis

import io.sparkllm.catalyst.LlmErrors
import io.sparkllm.catalyst.functions._

import org.apache.spark.sql.catalyst.expressions._
import org.apache.spark.sql.catalyst.plans.logical.LogicalPlan
import org.apache.spark.sql.catalyst.rules.Rule

/**
 * Fixes the names of a call's fields and renders their values to text.
 *
 * It runs right after resolution: earlier, HAVING shows temporary columns; later, views are inlined and their columns'
 * names are lost.
 */
object NameLlmFields extends Rule[LogicalPlan] {

  override def apply(plan: LogicalPlan): LogicalPlan = plan.resolveExpressions {
    case call: LlmCall if !call.params.named && call.childrenResolved => nameAndRender(call)
    case options: LlmOptions => throw LlmOptions.outside
  }

  private def nameAndRender(call: LlmCall): LlmCall = {
    val names = unique(call.arguments.zipWithIndex.map { case (argument, i) => candidates(argument, i + 1) })
    checkOptions(call, names)
    val (arguments, kinds) = call.arguments.zip(names).map { case (argument, name) =>
      RenderField(call.params.function, name, trimAlias(argument))
    }.unzip
    val fields = call.params.fields.zip(names).zip(kinds).map { case ((field, name), kind) =>
      field.copy(name = name, kind = if (field.role == PromptRole) "prompt" else kind)
    }
    call.withArguments(arguments, call.params.copy(fields = fields))
  }

  private def checkOptions(call: LlmCall, names: Seq[String]): Unit =
    call.params.options.get("unordered").collect { case items: Seq[_] => items }.foreach { unordered =>
      unordered.map(_.toString).find(!names.contains(_)).foreach { name =>
        throw LlmErrors("LLM_UNKNOWN_FIELD", "option" -> "unordered", "field" -> name,
          "function" -> call.params.function, "accepted" -> names.mkString(", "))
      }
    }

  /** Names from short to long: `t`, then `a.t`, then `catalog.db.a.t`; unnamed expressions by their position. */
  private def candidates(argument: Expression, position: Int): Seq[String] = argument match {
    case field: GetStructField =>
      val name = field.extractFieldName
      name +: candidates(field.child, position).map(outer => s"$outer.$name")
    case GetArrayStructFields(child, field, _, _, _) =>
      field.name +: candidates(child, position).map(outer => s"$outer.${field.name}")
    case named: NamedExpression =>
      named.qualifier.indices.reverse.foldLeft(Seq(named.name))((known, i) =>
        known :+ (named.qualifier.drop(i) :+ named.name).mkString("."))
    case _ => Seq(s"field_$position")
  }

  /** The shortest name, the qualified one where that tells equal names apart; what stays equal is numbered. */
  private def unique(candidates: Seq[Seq[String]]): Seq[String] = {
    val qualified = candidates.groupBy(_.head).collect {
      case (name, same) if same.size > 1 && same.forall(_.size > 1) && same.map(_(1)).distinct.size == same.size => name
    }.toSet
    val chosen = candidates.map(all => if (qualified(all.head)) all(1) else all.head)
    chosen.zipWithIndex.map { case (name, i) =>
      val earlier = chosen.take(i).count(_ == name)
      if (earlier == 0) name else s"${name}_${earlier + 1}"
    }
  }

  private def trimAlias(argument: Expression): Expression = argument match {
    case Alias(child, _) => child
    case other => other
  }
}
