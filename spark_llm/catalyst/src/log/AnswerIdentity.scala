package io.sparkllm.catalyst.log

import java.nio.ByteBuffer
import java.nio.charset.StandardCharsets.UTF_8
import java.security.MessageDigest
import java.util.Arrays

import scala.collection.mutable.ArrayBuffer

import org.apache.spark.sql.catalyst.InternalRow
import org.apache.spark.sql.catalyst.expressions.Expression
import org.apache.spark.sql.catalyst.expressions.codegen.CodegenFallback
import org.apache.spark.sql.types.{BinaryType, DataType}
import org.apache.spark.unsafe.types.UTF8String

/**
 * The identity of a row's answer, 32 bytes, as `optimizer/identity.py: IdentityRule` computes it.
 *
 * @param children the argument texts, in the order in which they enter
 * @param unordered which of them are arrays without order
 */
case class AnswerIdentity(base: Array[Byte], children: Seq[Expression], unordered: Set[Int])
    extends Expression with CodegenFallback {
  override def nullable: Boolean = false
  override def dataType: DataType = BinaryType
  override def prettyName: String = "answer_identity"

  override def eval(input: InternalRow): Any = {
    val digest = MessageDigest.getInstance("SHA-256")
    digest.update(base)
    children.indices.foreach { i =>
      val text = children(i).eval(input).asInstanceOf[UTF8String]
      val multiset = if (text != null && unordered(i)) AnswerIdentity.elements(text.toString) else Nil
      if (text == null) digest.update(0: Byte)
      else if (multiset.isEmpty) enter(digest, 1, text.getBytes)
      else enter(digest, 2, joined(multiset))
    }
    digest.digest()
  }

  private def enter(digest: MessageDigest, mark: Byte, bytes: Array[Byte]): Unit = {
    digest.update(mark)
    digest.update(ByteBuffer.allocate(8).putLong(bytes.length.toLong).array())
    digest.update(bytes)
  }

  private def joined(elements: Seq[String]): Array[Byte] =
    elements.map(_.getBytes(UTF_8)).sortWith((a, b) => Arrays.compareUnsigned(a, b) < 0)
      .reduce((a, b) => (a :+ '\n'.toByte) ++ b)

  /** Arrays compare by reference, and equal subplans must stay equal. */
  override lazy val canonicalized: Expression = copy(base = base.clone(), children = children.map(_.canonicalized))

  override def equals(other: Any): Boolean = other match {
    case that: AnswerIdentity =>
      Arrays.equals(base, that.base) && children == that.children && unordered == that.unordered
    case _ => false
  }

  override def hashCode: Int = Arrays.hashCode(base) * 31 + children.hashCode

  override protected def withNewChildrenInternal(newChildren: IndexedSeq[Expression]): AnswerIdentity =
    copy(children = newChildren)
}

object AnswerIdentity {
  private val Wrapped = "{\"v\":"

  /** The JSON texts of an array's elements, as they are; none for any other value. */
  def elements(value: String): Seq[String] = {
    val text = (if (value.startsWith(Wrapped) && value.endsWith("}")) value.slice(Wrapped.length, value.length - 1) else value).trim
    if (!text.startsWith("[")) Nil else split(text)
  }

  private def split(text: String): Seq[String] = {
    val found = ArrayBuffer.empty[String]
    var (depth, start, i, quoted) = (0, 1, 0, false)
    while (i < text.length) {
      text.charAt(i) match {
        case '\\' if quoted => i += 1
        case '"' => quoted = !quoted
        case _ if quoted =>
        case '[' | '{' => depth += 1
        case ']' | '}' =>
          depth -= 1
          if (depth == 0) found += text.slice(start, i).trim
        case ',' if depth == 1 =>
          found += text.slice(start, i).trim
          start = i + 1
        case _ =>
      }
      i += 1
    }
    found.filter(_.nonEmpty).toSeq
  }
}
