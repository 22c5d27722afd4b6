package io.sparkllm.catalyst

import scala.jdk.CollectionConverters._

import com.fasterxml.jackson.databind.{JsonNode, ObjectMapper}

/** The JSON tables that JVM and Python share; they travel inside the JAR. */
object Tables {
  val mapper = new ObjectMapper()

  private lazy val functionsJson = read("functions.json")
  private lazy val conditions = read("error-conditions.json")
  private lazy val settings = read("conf.json")

  /** One SQL function, as `functions.json` describes it. */
  final case class Function(name: String, node: JsonNode) {
    def usage: String = node.get("usage").asText
    def shape: String = usage.split(" - ").head
    def arguments: String = node.get("arguments").asText
    def example: String = node.get("example").asText
    def takesPrompt: Boolean = node.get("prompt").asText == "required"
    def options: Seq[String] = node.get("options").elements.asScala.map(_.asText).toSeq
  }

  lazy val functions: Seq[Function] =
    functionsJson.get("functions").properties.asScala.map(e => Function(e.getKey, e.getValue)).toSeq

  def function(name: String): Function = functions.find(_.name == name).get

  /** The rule of a named option: its type, bounds and meaning. */
  def option(name: String): JsonNode = functionsJson.get("options").get(name)

  def condition(name: String): JsonNode = conditions.get(name)

  /** All settings below a prefix. */
  def confKeys(prefix: String): Seq[String] = settings.fieldNames.asScala.filter(_.startsWith(prefix)).toSeq

  /** The default of a setting; none for a key that does not exist. */
  def confDefault(key: String): String = Option(settings.get(key)).fold("")(_.get("default").asText)

  private def read(file: String): JsonNode = {
    val stream = getClass.getResourceAsStream(s"/spark_llm/$file")
    try mapper.readTree(stream)
    finally stream.close()
  }
}
