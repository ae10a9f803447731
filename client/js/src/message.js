/** A message that a handler of `work` gets, and how it ends. */
import { QueueError } from "./client/errors.js";
import { jsonText } from "./client/messages.js";

/** @import { Reservation } from "./client/types.js" */

/**
 * @typedef {{kind: "ack", job?: string, result?: unknown}
 *           | {kind: "retry", delay?: number, reason?: string, job?: string}
 *           | {kind: "reject", reason?: string, job?: string}
 *           | {kind: "unstarted", job?: undefined}} Outcome
 */

/** Throw it for a message that can never succeed: it becomes a dead letter at once, with this text as the reason. */
export class Reject extends Error {
  name = "Reject";
}

export class QueueMessage {
  #reservation;
  #ended = new AbortController();

  /** How it ends, once that is decided. @type {Outcome | null} */
  outcome = null;

  /** @param {Reservation} reservation @param {string | null} queue */
  constructor(reservation, queue) {
    this.#reservation = reservation;
    /** The queue that it was taken from; null: the server's default queue. */
    this.queue = queue;
    /** When its lease ends, Unix seconds by the server's clock. It is renewed before. */
    this.deadline = reservation.deadline;
  }

  /** The id of this delivery. */
  get id() {
    return this.#reservation.id;
  }

  /** How often it has been delivered, this time included. */
  get deliveries() {
    return this.#reservation.deliveries;
  }

  /** After that many deliveries it becomes a dead letter. */
  get maxDeliveries() {
    return this.#reservation.max_deliveries;
  }

  /** Whether it becomes a dead letter if it fails now. */
  get isLastDelivery() {
    return this.deliveries >= this.maxDeliveries;
  }

  /** The message as text; throws a Reject if it is not UTF-8. @returns {string} */
  get text() {
    const { message } = this.#reservation;
    if (typeof message !== "string") throw new Reject("The message is not UTF-8.");
    return message;
  }

  /** The message as it was pushed, byte for byte. @returns {Uint8Array<ArrayBuffer>} */
  get bytes() {
    const { message } = this.#reservation;
    if (typeof message === "string") return new TextEncoder().encode(message);
    return Uint8Array.from(atob(message.base64), (character) => character.charCodeAt(0));
  }

  /** Return the message parsed as JSON; throws a Reject if it is not. @returns {any} */
  json() {
    const { text } = this;
    try {
      return JSON.parse(text);
    } catch (/** @type {any} */ error) {
      throw new Reject(`The message is not JSON: ${error.message}`);
    }
  }

  /** Aborted once the message is not this worker's any more: its lease has ended, or the worker has stopped. */
  get signal() {
    return this.#ended.signal;
  }

  /**
   * Decide that it is acked when the handler ends, even if that throws. With `job`, its result is stored for its producer.
   * @param {{job?: string, result?: unknown}} options result: text, or a JSON value; else QueueError "bad_message"
   */
  ack({ job, result } = {}) {
    if (job !== undefined && (result === null || result === "" || result === undefined)) {
      throw new QueueError("bad_message", "A result must not be empty.");
    }
    jsonText({ job, result });
    this.outcome = { kind: "ack", job, result };
  }

  /**
   * Decide that it is delivered again when the handler ends, or becomes a dead letter if this is the last delivery.
   * @param {{delay?: number, reason?: string, job?: string}} options
   *     delay: seconds until then, by default `retryDelay` of the worker; job: its producer learns of the dead letter
   */
  retry({ delay, reason, job } = {}) {
    this.outcome = { kind: "retry", delay, reason, job };
  }

  /**
   * Decide that it becomes a dead letter when the handler ends.
   * @param {string} reason @param {{job?: string}} options job: its producer gets the reason in place of a result
   */
  reject(reason, { job } = {}) {
    this.outcome = { kind: "reject", reason, job };
  }

  /** Abort its `signal`; for the worker. */
  end() {
    this.#ended.abort();
  }
}
