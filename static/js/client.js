/**
 * A client of the queue's JSON API, with one method per operation. It works in any page of this origin, and in Node:
 *
 *     import { QueueClient } from "/static/js/client.js";
 *     const jobs = new QueueClient("jobs");
 *     await jobs.push("hello");
 *     const message = await jobs.pop({ wait: 30 });       // null if none arrived in time
 *     await jobs.push("later", { delay: 60 });
 *     const { result } = await jobs.result("job-7", { wait: 30 }) ?? {};
 *     const stop = jobs.events({ queue: (state) => console.log(state.count) });
 *
 * A message is text, or {base64: "..."} for bytes that are not UTF-8. Bytes (a buffer, a view of one, a Blob) can be
 * pushed as they are; a value that JSON would change, such as a Map or NaN, is refused with the code "bad_message".
 *
 * Every failure rejects with a QueueError. While a queue is paused, or its limits are reached, pop and reserve reject
 * with the code "paused" or "limited", so that neither looks like an empty queue; with "limited",
 * `error.answer.retry_after` is how many seconds to wait.
 *
 * @import { Connection, Message, PopOptions, Preview, QueueList, QueueListChange, QueueState, Reservation,
 *           ReserveOptions, Settings, Settlement } from "./client/types.js"
 */
import { defaultBase, defaultToken } from "./address.js";
import { QueueError as Failure } from "./client/errors.js";
import { Http } from "./client/http.js";
import { nextLines } from "./client/lines.js";
import { bytesBody, messageValue, pushBody } from "./client/messages.js";
import { EVENTS_PATH, QUEUES_PATH, baseUrl } from "./client/paths.js";
import { QueueReader } from "./client/reader.js";

/** What pop and reserve return for no message. @type {any} */
const NONE = null;

/** @typedef {Failure} QueueError */
export const QueueError = Failure;

export class QueueClient extends QueueReader {
  /**
   * @param {string | string[] | null} name
   *     null: the server's default queue; a list: up to 10 queues in order, only to pop and reserve from the first that
   *     has a message
   * @param {{base?: string | URL, token?: string, fetch?: typeof globalThis.fetch}} options
   *     base: the address of the app; token: not needed in a page whose visitor is signed in
   */
  constructor(name = null, { base, token = defaultToken(), fetch = globalThis.fetch } = {}) {
    const address = base === undefined ? defaultBase() : baseUrl(base);
    super(Array.isArray(name) ? name.join(",") : name, address, new Http(token, fetch));
  }

  /**
   * Return a client for another queue, or several, on the same server.
   * @param {string | string[]} name @returns {this}
   */
  of(name) {
    const Client = /** @type {any} */ (this.constructor);
    return new Client(name, { base: this.base, token: this.http.token, fetch: this.http.fetch });
  }

  // --- push and pop

  /**
   * Add a message, or several: all or none.
   * @param {any} message text, bytes (a Blob too), or a list of messages; other JSON values are stored as JSON text
   * @param {{front?: boolean, delay?: number, key?: string, signal?: AbortSignal}} options
   *     front: add it to the front, to be popped next; delay: seconds until it becomes available (not with `front`);
   *     key: an Idempotency-Key, with which the same push can be retried safely
   * @returns {Promise<{count: number, message?: Message, pushed?: number, id?: string, ids?: string[]}>}
   *     count: the length of the queue; id, ids: of delayed messages
   */
  async push(message, { front = false, delay, key = "", signal } = {}) {
    const body = await pushBody(message);
    return this.#post("push", { query: { front, delay: delay || undefined }, body, key, signal });
  }

  /**
   * Add each line of a text or file as a message, in slices, with constant memory.
   * @param {string | Blob | ArrayBuffer | ArrayBufferView} text
   * @param {{json?: boolean, progress?: (done: {pushed: number, bytes: number, size: number}) => void,
   *          signal?: AbortSignal}} options
   *     json: each line is a JSON value (NDJSON), as `exportLines` yields them; signal: stops between two slices, so
   *     that the number of messages pushed is exact
   * @returns {Promise<{pushed: number, bytes: number, size: number}>} a QueueError has `answer.pushed`: how many were
   *     pushed before it
   */
  async pushLines(text, { json = false, progress = () => {}, signal } = {}) {
    const blob = typeof text === "string" ? new Blob([text]) : text instanceof Blob ? text : await bytesBody(text);
    const done = { pushed: 0, bytes: 0, size: blob.size };
    while (done.bytes < blob.size && !signal?.aborted) {
      let lines;
      try {
        lines = await nextLines(blob, done.bytes);
        const body = new Blob([lines], { type: json ? "application/x-ndjson" : "text/plain" });
        done.pushed += (await this.#post("push", { query: json ? {} : { each: "line" }, body })).pushed;
      } catch (/** @type {any} */ error) {
        throw error.withDetails({ pushed: done.pushed + (error.answer.pushed ?? 0) });
      }
      done.bytes += lines.length;
      progress({ ...done });
    }
    return done;
  }

  /** Add a message, byte for byte. @param {Blob | ArrayBuffer | ArrayBufferView} bytes @returns {Promise<{count: number}>} */
  async pushBytes(bytes) {
    return this.#post("push", { body: await bytesBody(bytes) });
  }

  /**
   * Remove and return the next message, or null if there is none; with `max`, a list of up to that many.
   * @template {number | undefined} [Max=undefined]
   * @param {PopOptions & {max?: Max}} options
   * @returns {Promise<Max extends number ? Message[] : Message | null>}
   */
  async pop({ max, wait, by, key = "", signal } = {}) {
    const answer = await this.#post("pop", { query: { max, wait, by }, key, signal });
    return max !== undefined ? answer.messages : answer.success ? answer.message : NONE;
  }

  // --- reservations

  /**
   * Reserve the next message; it returns to the queue unless it is acked in time. null if there is none; with `max`, a
   * list of up to that many.
   * @template {number | undefined} [Max=undefined]
   * @param {ReserveOptions & {max?: Max}} options
   * @returns {Promise<Max extends number ? Reservation[] : Reservation | null>}
   */
  async reserve({ lease, wait, max, by, signal } = {}) {
    const answer = await this.#post("reserve", { query: { lease, wait, max, by }, signal });
    const queue = answer.queue && { queue: answer.queue }; // set if several queues were named: ack with `of(queue)`
    if (max !== undefined) return answer.messages.map((/** @type {Reservation} */ one) => ({ ...one, ...queue }));
    const { success, ...reservation } = answer;
    return success ? /** @type {any} */ (reservation) : NONE;
  }

  /**
   * Acknowledge reserved messages: all or none. With a single id, `job` and `result` store the result of its job.
   * @param {string | string[]} id @param {{job?: string, result?: any}} options
   * @returns {Promise<{acked: number}>}
   */
  async ack(id, { job, result } = {}) {
    const value = job === undefined && result === undefined ? undefined : await messageValue(result);
    return this.#post("ack", { body: { ...idBody(id), job, result: value } });
  }

  /**
   * Return reserved messages to the queue, to be popped next or in `delay` seconds, or bury them (`dead`): all or none.
   * @param {string | string[]} id
   * @param {{delay?: number, dead?: boolean, unstarted?: boolean, reason?: string, job?: string}} options
   *     unstarted: this delivery does not count; reason: why it failed; job: with one id, keep the reason as the result of this job if the message is buried
   * @returns {Promise<{released: number, dead: number}>} dead: the number buried, also after too many deliveries
   */
  release(id, { delay, dead, unstarted, reason, job } = {}) {
    const options = {
      delay: delay || undefined,
      dead: dead || undefined,
      unstarted: unstarted || undefined,
      reason: reason || undefined,
      job,
    };
    return this.#post("release", { body: { ...idBody(id), ...options } });
  }

  /**
   * Extend leases or delays to end `lease` seconds from now: all or none.
   * @param {string | string[]} id @param {number} lease @returns {Promise<{deadline: number}>}
   */
  extend(id, lease) {
    return this.#post("extend", { body: { ...idBody(id), lease } });
  }

  /**
   * Acknowledge, release and extend up to 1,000 reservations in one request, independently of one another.
   * @param {Settlement} batch ids, or objects with an id and the options of `ack`, `release` and `extend`
   * @param {{signal?: AbortSignal}} options
   * @returns {Promise<{acked: number, released: number, dead: number, extended: number, stale: string[]}>}
   *     stale: the ids that are not held any more; nothing was changed about them
   */
  async settle({ acks = [], releases = [], extends: extended = [] }, { signal } = {}) {
    const withResult = async (/** @type {any} */ ack) => ({ ...ack, result: await messageValue(ack.result) });
    const done = await Promise.all(acks.map((ack) => (Object(ack).result === undefined ? ack : withResult(ack))));
    return this.#post("settle", { body: { acks: done, releases, extends: extended }, signal });
  }

  // --- tidying up

  /**
   * Remove the message at a position, if it is still this message; else QueueError "stale".
   * @overload
   * @param {number} position 0: next to be popped @param {Message} message
   * @param {{undo?: boolean}} [options] undo: keep it for an hour, so that `restore` can put it back where it was
   * @returns {Promise<{message: Message, undo?: string}>}
   */
  /**
   * Remove all messages that contain a text or failed for a reason, as `reasons` returns it; or up to 1,000 given
   * messages, each only if it is still at its position. `restore` puts them to the front.
   * @overload
   * @param {{contains?: string, reason?: string} | {messages: {position: number, message: Message}[]}} which
   * @returns {Promise<{removed: number, undo: string | null}>}
   */
  /** @param {any} which @param {Message} [message] @param {{undo?: boolean}} options */
  remove(which, message, { undo } = {}) {
    return this.#post("remove", { body: typeof which === "object" ? which : { position: which, message, undo } });
  }

  /**
   * Remove all messages; for an hour, `restore` can undo it.
   * @returns {Promise<{cleared: number, undo: string | null}>}
   */
  clear() {
    return this.#post("clear");
  }

  /** Undo a clear, a removal or a move. @param {string} undo @returns {Promise<{restored: number}>} */
  restore(undo) {
    return this.#post("restore", { body: { undo } });
  }

  /**
   * Move messages to another queue, the oldest first.
   * @param {string} to
   * @param {{max?: number, contains?: string, reason?: string, position?: number, message?: Message}} options
   *     max: the maximum number to move, all by default; contains, reason: only messages that contain this text, or
   *     failed for this reason, as `reasons` returns it; position and message: the message at a position, if it is
   *     still this message; else QueueError "stale"
   * @returns {Promise<{moved: number, undo: string | null}>}
   *     undo: for an hour, `restore` of this queue moves back those that still wait
   */
  move(to, { max, contains, reason, position, message } = {}) {
    return this.#post("move", { body: { to, max, contains, reason, position, message } });
  }

  /** Pause delivery: pop and reserve return nothing. Redis clients that use the list directly are not affected. */
  pause() {
    return this.#post("pause");
  }

  /** Resume delivery; clients that wait get their messages at once. */
  resume() {
    return this.#post("resume");
  }

  /**
   * Return the queue's settings; 0 stands for none.
   * @returns {Promise<Settings>}
   */
  async settings() {
    const { at_once, per_second, max_deliveries } = await this.get("settings");
    return { at_once, per_second, max_deliveries };
  }

  /**
   * Change settings of the queue, and return all; 0 removes one.
   * @param {Partial<Settings>} settings @returns {Promise<Settings>}
   */
  async setSettings(settings) {
    const { at_once, per_second, max_deliveries } = await this.#post("settings", { body: settings });
    return { at_once, per_second, max_deliveries };
  }

  // --- results

  /**
   * Store the result of a job for its producer.
   * @param {string} job 1 to 255 visible ASCII characters, chosen by the producer
   * @param {any} result @param {{keep?: number}} options keep: seconds, a day by default
   */
  async setResult(job, result, { keep } = {}) {
    return this.#post("result", { body: { job, result: await messageValue(result), keep } });
  }

  /**
   * Return the result of a job, or why it failed; null if there is nothing yet or it has expired.
   * @param {string} job @param {{wait?: number, signal?: AbortSignal}} options wait: seconds to wait for it
   * @returns {Promise<{job: string, result?: Message, failed?: string, at: number} | null>}
   *     failed: the reason, in place of the result; at: when it was stored, Unix seconds
   */
  async result(job, { wait, signal } = {}) {
    const answer = await this.get("result", { job, wait }, signal);
    const { success, ...result } = answer;
    return success ? result : null;
  }

  // --- all queues, and events

  /** List all queues. @returns {Promise<QueueList>} */
  queues() {
    return this.http.answer(new URL(QUEUES_PATH, this.base), { method: "GET" });
  }

  /**
   * Follow the queue: receive its state now and after every change. The stream reconnects by itself.
   * @param {{queue?: (state: QueueState) => void, connection?: (now: Connection, error?: QueueError) => void}} handlers
   * @param {{next?: number, history?: boolean}} options next: how many messages from the front to include
   * @returns {() => void} call it to stop
   */
  events({ queue = () => {}, connection = () => {} }, { next, history } = {}) {
    /** @type {Preview[]} */
    let first = []; // an event includes the first messages only if they changed
    const complete = (/** @type {QueueState} */ state) => {
      first = state.next ?? first;
      queue({ ...state, next: first });
    };
    return this.http.follow(this.url("events", { next, history }), { queue: complete }, connection);
  }

  /** The URL of the stream of all queues, with their history. @returns {URL} */
  get allEventsUrl() {
    return new URL(`${EVENTS_PATH}?history=1`, this.base);
  }

  /**
   * Follow all queues: receive the whole list now and after every interruption, and changes in between.
   * @param {{queues?: (list: QueueList) => void, changed?: (change: QueueListChange) => void,
   *          connection?: (now: Connection, error?: QueueError) => void}} handlers
   * @returns {() => void} call it to stop
   */
  allEvents({ queues = () => {}, changed = () => {}, connection = () => {} }) {
    return this.http.follow(this.allEventsUrl, { queues, changed }, connection);
  }

  // --- requests

  /** @param {string} operation @param {{query?: object, body?: any, key?: string, signal?: AbortSignal}} options */
  async #post(operation, { query = {}, ...options } = {}) {
    return this.http.post(this.url(operation, query), options);
  }
}

/** @param {string | string[]} id */
const idBody = (id) => (Array.isArray(id) ? { ids: id } : { id });
