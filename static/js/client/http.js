/** The requests of a client: each sends its token and rejects with a QueueError. */

import { UNKNOWN, failureOf, parseAnswer, stoppedBy } from "./answers.js";
import { followEvents } from "./events.js";
import { jsonText } from "./messages.js";

/** @import { QueueError } from "./errors.js" */
/** @import { Connection } from "./types.js" */

const CLOCK_TOLERANCE_MS = 2000; // the Date header is in whole seconds

export class Http {
  /** @param {string} token "": none @param {typeof globalThis.fetch} fetch */
  constructor(token, fetch) {
    this.token = token;
    /** @type {typeof globalThis.fetch} */
    this.fetch = (...args) => fetch(...args); // fetch must not be called as a method
    /** How far the server's clock is ahead of this one, milliseconds, as of the last response; 0 if they agree. */
    this.clockOffset = 0;
  }

  /** @param {URL} url @param {AbortSignal} [signal] */
  get(url, signal) {
    return this.answer(url, { method: "GET", signal });
  }

  /** @param {URL} url @param {{body?: any, key?: string, signal?: AbortSignal}} options */
  async post(url, { body, key = "", signal } = {}) {
    /** @type {Record<string, string>} */
    const headers = key ? { "Idempotency-Key": key } : {};
    if (body !== undefined && !(body instanceof Blob)) {
      headers["Content-Type"] = "application/json";
      body = jsonText(body);
    }
    return this.answer(url, { method: "POST", headers, body, signal });
  }

  /** Return the JSON of an answer. @param {URL} url @param {RequestInit} options */
  async answer(url, options) {
    return parseAnswer(await this.send(url, options), options.signal);
  }

  /** Return an answer as a stream of lines, one JSON value per message. @param {URL} url @param {AbortSignal} [signal] */
  async lines(url, signal) {
    const response = await this.send(url, { headers: { Accept: "application/x-ndjson" }, signal });
    if (!response.ok || !response.body) throw await parseAnswer(response, signal);
    return response.body;
  }

  /**
   * Follow a stream of events, and return a function that stops it.
   * @param {URL} url @param {Record<string, (data: any) => void>} handlers
   * @param {(now: Connection, error?: QueueError) => void} connection
   */
  follow(url, handlers, connection) {
    const stopped = new AbortController();
    const headers = { Accept: "text/event-stream" };
    const open = (/** @type {AbortSignal} */ signal) => this.send(url, { headers, signal });
    followEvents(open, handlers, connection, stopped.signal);
    return () => stopped.abort();
  }

  /** @param {URL} url @param {RequestInit} options */
  async send(url, options) {
    if (options.signal?.aborted) throw stoppedBy(options.signal, "It was not sent.");
    const headers = this.token ? { ...options.headers, Authorization: `Bearer ${this.token}` } : options.headers;
    try {
      const response = await this.fetch(url, { ...options, headers, cache: "no-store" });
      const offset = Date.parse(response.headers.get("Date") ?? "") - Date.now();
      this.clockOffset = Math.abs(offset) > CLOCK_TOLERANCE_MS ? offset : 0;
      return response;
    } catch (error) {
      throw failureOf(error, `No response. ${UNKNOWN}`, options.signal);
    }
  }
}
