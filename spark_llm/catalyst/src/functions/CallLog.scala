package io.sparkllm.catalyst.functions

/**
 * How a call uses the result log.
 *
 * @param folder the call's, in the log
 * @param since seconds since 1970 of its newest file
 * @param joined whether the last argument is the answer that the log holds
 */
final case class CallLog(folder: String, since: Double, joined: Boolean)
