/** Reading the responses of the API. */
import { QueueError } from "./errors.js";

const NOTHING_CODES = new Set(["empty", "no_result"]); // these mean "nothing there", which is not a failure

export const UNKNOWN = "It is unknown whether this was done.";

/**
 * Return the JSON of a response.
 * @param {Response} response @param {AbortSignal | null} [signal] @returns {Promise<any>}
 *     rejects with a QueueError unless it is a success or an empty result
 */
export async function parseAnswer(response, signal) {
  let answer;
  try {
    answer = await response.json();
  } catch (/** @type {any} */ error) {
    if (error?.name !== "SyntaxError") throw failureOf(error, `The response broke off. ${UNKNOWN}`, signal);
  }
  const { status } = response;
  if (typeof answer !== "object" || answer === null) {
    throw new QueueError("no_json", `The response (${status}) did not come from this server.`, status);
  }
  if (answer.success === true || NOTHING_CODES.has(answer.error)) return answer;
  throw new QueueError(answer.error ?? "outcome_unknown", answer.message ?? "", status, answer);
}

/**
 * Yield the chunks of a stream as they arrive.
 * @template T @param {ReadableStream<T>} stream @param {AbortSignal} [signal]
 * @returns {AsyncGenerator<T>} throws a QueueError if the stream breaks off
 */
export async function* chunksOf(stream, signal) {
  const reader = stream.getReader();
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      yield value;
    }
  } catch (error) {
    throw failureOf(error, "The response broke off.", signal);
  } finally {
    reader.cancel().catch(() => {});
  }
}

/**
 * Return the QueueError for an exception of fetch: "timeout" or "aborted" if the caller's signal ended it.
 * @param {any} error @param {string} message otherwise @param {AbortSignal | null} [signal]
 */
export function failureOf(error, message, signal) {
  if (!signal?.aborted && error?.name !== "AbortError") return new QueueError("offline", message);
  return stoppedBy(signal, UNKNOWN);
}

/**
 * Return the QueueError of a request that its signal ended.
 * @param {AbortSignal | null | undefined} signal @param {string} state what is known of the request
 */
export function stoppedBy(signal, state) {
  const isTimeout = signal?.reason?.name === "TimeoutError";
  return isTimeout ? new QueueError("timeout", `Timed out. ${state}`) : new QueueError("aborted", `Stopped. ${state}`);
}
