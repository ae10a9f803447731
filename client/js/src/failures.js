/** Failures: the reasons of messages, delays until a retry, and what to do about an error of the server. */
import { QueueError } from "./client/errors.js";
import { Reject } from "./message.js";

/** @import { QueueMessage, Outcome } from "./message.js" */
/** @typedef {number | ((deliveries: number, error: unknown) => number)} RetryDelay */

const MAX_REASON = 1000; // characters, the limit of the API
const MAX_DELAY = 2_592_000; // seconds, the limit of the API
const MAX_BACKOFF = 3600; // seconds
const REFUSED_CONTENT = new Set([400, 413]); // what one message says is refused, not this client

/**
 * Return the number of seconds until a retry: 1 to 2 after the first delivery, doubling each time, an hour at most. It
 * is random, so that messages that failed together are not retried together.
 * @param {number} deliveries
 */
const backoff = (deliveries) => Math.min(MAX_BACKOFF, 2 ** deliveries) * (0.5 + Math.random() / 2);

/** Return what a handler threw, whatever it is, as the reason of a failure. @param {unknown} error */
export function reasonOf(error) {
  try {
    const text = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
    return text.slice(0, MAX_REASON).toWellFormed();
  } catch {
    return "An error that has no text";
  }
}

/** Return how a message ends whose handler threw. @param {unknown} error @returns {Outcome} */
export function outcomeOf(error) {
  return { kind: isReject(error) ? "reject" : "retry", reason: reasonOf(error) };
}

/** @param {unknown} error */
function isReject(error) {
  try {
    return error instanceof Reject;
  } catch {
    return false; // a proxy that fails
  }
}

/**
 * Return the item of `releases` for a message that is retried or rejected.
 * @param {QueueMessage} message @param {Exclude<Outcome, {kind: "ack"}>} outcome
 * @param {RetryDelay | undefined} retryDelay @param {unknown} error
 */
export function releaseOf(message, outcome, retryDelay, error) {
  const { id, deliveries } = message;
  if (outcome.kind === "unstarted") return { id, unstarted: true };
  const { reason = "", job } = outcome;
  const ending = { id, reason: reasonOf(reason), ...(job === undefined ? {} : { job }) };
  if (outcome.kind === "reject") return { ...ending, dead: true };
  return { ...ending, delay: delayOf(outcome.delay ?? retryDelay, deliveries, error) };
}

/** @param {RetryDelay | undefined} retryDelay @param {number} deliveries @param {unknown} error */
function delayOf(retryDelay, deliveries, error) {
  let delay;
  try {
    delay = typeof retryDelay === "function" ? retryDelay(deliveries, error) : retryDelay;
  } catch {
    // as if it had returned none
  }
  return typeof delay === "number" && delay >= 0 ? Math.min(delay, MAX_DELAY) : backoff(deliveries);
}

/**
 * Return what an error of a request means: "transient" (try again), "content" (something in it is refused), or "fatal".
 * @param {unknown} error @returns {"transient" | "content" | "fatal"}
 */
export function meaningOf(error) {
  if (!(error instanceof QueueError)) return "fatal";
  const { status, code } = error;
  if (code === "no_json" || code === "incomplete_body" || status >= 500 || status === 429 || status === 408 || status === 200) return "transient";
  if (status === 0) return code === "bad_message" || code === "bad_name" ? "content" : "transient";
  return REFUSED_CONTENT.has(status) ? "content" : "fatal";
}
