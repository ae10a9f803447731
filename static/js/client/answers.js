/** Reading the responses of the API. */
import { QueueError } from "./errors.js";

const NOTHING_CODES = new Set(["empty", "no_result"]); // these mean "nothing there", which is not a failure

/**
 * Return the JSON of a response.
 * @param {Response} response @returns {Promise<any>}
 *     rejects with a QueueError unless it is a success or an empty result
 */
export async function parseAnswer(response) {
  let answer;
  try {
    answer = await response.json();
  } catch {
    const { status } = response;
    throw new QueueError("no_json", `The response (${status}) did not come from this server.`, status);
  }
  if (answer.success === true || NOTHING_CODES.has(answer.error)) return answer;
  throw new QueueError(answer.error ?? "outcome_unknown", answer.message ?? "", response.status, answer);
}

/**
 * Yield the chunks of a stream as they arrive.
 * @template T @param {ReadableStream<T>} stream
 * @returns {AsyncGenerator<T>} throws a QueueError if the stream breaks off
 */
export async function* chunksOf(stream) {
  const reader = stream.getReader();
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      yield value;
    }
  } catch (error) {
    throw failureOf(error, "The response broke off.");
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Return the QueueError for an exception of fetch. @param {any} error @param {string} message if it was not aborted */
export function failureOf(error, message) {
  return error.name === "AbortError" ? new QueueError("aborted", "Stopped.") : new QueueError("offline", message);
}
