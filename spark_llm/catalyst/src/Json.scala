package io.sparkllm.catalyst

import scala.jdk.CollectionConverters._

import com.fasterxml.jackson.databind.JsonNode

/** Scala values as JSON and back. */
object Json {

  /** Maps, sequences, strings, numbers, booleans, `null`, options and JSON nodes as a JSON node. */
  def of(value: Any): JsonNode = value match {
    case node: JsonNode => node
    case Some(inner) => of(inner)
    case None => Tables.mapper.nullNode
    case map: collection.Map[_, _] =>
      val node = Tables.mapper.createObjectNode()
      map.foreach { case (key, inner) => node.set[JsonNode](key.toString, of(inner)) }
      node
    case items: Iterable[_] =>
      val node = Tables.mapper.createArrayNode()
      items.foreach(item => node.add(of(item)))
      node
    case other => Tables.mapper.valueToTree[JsonNode](other)
  }

  def text(value: Any): String = Tables.mapper.writeValueAsString(of(value))

  def parse(text: String): JsonNode = Tables.mapper.readTree(text)

  /** A JSON node as an option's value: String, Long, Double, Boolean or Seq of these. */
  def value(node: JsonNode): Any = node match {
    case n if n.isTextual => n.asText
    case n if n.isBoolean => n.asBoolean
    case n if n.isIntegralNumber && n.canConvertToLong => n.asLong
    case n if n.isNumber => n.asDouble
    case n if n.isArray => n.elements.asScala.map(value).toSeq
    case n => n
  }
}
