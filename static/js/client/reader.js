/** What reads a queue and changes nothing: the base of QueueClient. */

import { chunksOf } from "./answers.js";
import { QueueError } from "./errors.js";
import { operationPath } from "./paths.js";

/** @import { Http } from "./http.js" */
/** @import { Aged, Consumer, Counts, Details, FailureReason, Found, InFlight, Message, Preview } from "./types.js" */

export class QueueReader {
  /** @param {string | null} name null: the server's default queue @param {URL} base @param {Http} http */
  constructor(name, base, http) {
    this.name = name;
    this.base = base;
    /** @protected */
    this.http = http;
  }

  /** How far the server's clock is ahead of this one, milliseconds, as of the last response; 0 if they agree. */
  get clockOffset() {
    return this.http.clockOffset;
  }

  /** Return the URL of an operation. @param {string} operation @param {object} query @returns {URL} */
  url(operation, query = {}) {
    // A URL drops these two, so the request would go to another queue.
    if (this.name === "." || this.name === "..") throw new QueueError("bad_name", "No URL can hold this name.");
    const url = new URL(operationPath(this.name, operation), this.base);
    for (const [key, value] of Object.entries(query)) {
      if (value !== undefined && value !== null && value !== false) {
        url.searchParams.set(key, value === true ? "1" : String(value));
      }
    }
    return url;
  }

  /** Count the queue's messages and the clients that wait. @returns {Promise<Counts & Aged>} */
  count() {
    return this.get("count");
  }

  /**
   * List waiting messages without changing the queue; the next to be popped comes first.
   * @param {{offset?: number, limit?: number, preview?: number, contains?: string, reason?: string, details?: boolean,
   *          signal?: AbortSignal}} options
   *     preview: return only this many characters of each, as {preview, bytes}; contains, reason: only messages that
   *     contain this text, or failed for this reason of `reasons`, each with its position; details: with the number of
   *     deliveries and the last failure of each
   * @returns {Promise<{messages: Array<Message | Preview | Found | Details>, count: number}>}
   */
  all({ offset, limit, preview, contains, reason, details, signal } = {}) {
    return this.get("all", { offset, limit, preview, contains, reason, details }, signal);
  }

  /**
   * Search the whole queue for a text, and yield the messages as they are found, the next to be popped first.
   * @param {string | undefined} contains
   * @param {{reason?: string, limit?: number, preview?: number, signal?: AbortSignal}} options
   *     reason: only messages that failed for this reason of `reasons`
   * @returns {AsyncGenerator<Found>}
   */
  async *find(contains, { reason, limit, preview = 200, signal } = {}) {
    const body = await this.http.lines(this.url("all", { contains, reason, limit, preview }), signal);
    let rest = "";
    for await (const text of chunksOf(body.pipeThrough(new TextDecoderStream()), signal)) {
      const lines = (rest + text).split("\n");
      rest = lines.pop() ?? "";
      yield* lines.map((line) => JSON.parse(line));
    }
  }

  /**
   * Read all waiting messages as NDJSON, which `pushLines` accepts, and yield the bytes as they arrive.
   * @param {{contains?: string, reason?: string, signal?: AbortSignal}} options
   *     contains, reason: only messages that contain this text, or failed for this reason of `reasons`
   * @returns {AsyncGenerator<Uint8Array>}
   */
  async *exportLines({ contains, reason, signal } = {}) {
    yield* chunksOf(await this.http.lines(this.url("all", { contains, reason }), signal), signal);
  }

  /**
   * List the reserved messages, those whose leases end first at the top.
   * @param {{offset?: number, limit?: number, preview?: number, signal?: AbortSignal}} options
   * @returns {Promise<{messages: InFlight[], count: number}>}
   */
  reserved({ offset, limit, preview, signal } = {}) {
    return this.get("reserved", { offset, limit, preview }, signal);
  }

  /**
   * List the delayed messages, the next to become available first. Their ids can be released (now), extended (later) or
   * acked (never).
   * @param {{offset?: number, limit?: number, preview?: number, signal?: AbortSignal}} options
   * @returns {Promise<{messages: InFlight[], count: number}>}
   */
  delayed({ offset, limit, preview, signal } = {}) {
    return this.get("delayed", { offset, limit, preview }, signal);
  }

  /**
   * List who has reserved messages and who waits for one.
   * @returns {Promise<{consumers: Consumer[], complete: boolean}>} complete: whether these are all
   */
  consumers() {
    return this.get("consumers");
  }

  /**
   * Count why messages failed: the dead letters of the queue, and what waits to be retried.
   * @param {{signal?: AbortSignal}} options
   * @returns {Promise<{reasons: FailureReason[], complete: boolean}>}
   *     the most frequent first; complete: whether all were counted
   */
  reasons({ signal } = {}) {
    return this.get("reasons", {}, signal);
  }

  /** @param {string} operation @param {object} query @param {AbortSignal} [signal] @protected */
  async get(operation, query = {}, signal = undefined) {
    return this.http.get(this.url(operation, query), signal);
  }
}
