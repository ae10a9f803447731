/**
 * The queue's JSON API, one method per verb. It imports nothing, so any page of this origin can use it:
 *
 *     import { QueueClient } from "/static/js/client.js";
 *     const jobs = new QueueClient("jobs");
 *     await jobs.push("hello");
 *     const message = await jobs.pop({ wait: 30 });       // null if none arrived in time
 *     await jobs.push("later", { delay: 60 });
 *     const { result } = await jobs.result("job-7", { wait: 30 }) ?? {};
 *     const stop = jobs.events({ queue: (state) => console.log(state.count) });
 *
 * A message is text, or {base64: "..."} for bytes that are not UTF-8. Every failure rejects with a QueueError. A paused
 * queue is one: pop and reserve reject with the code "paused", so that it is not mistaken for an empty queue.
 *
 * @typedef {string | {base64: string}} Message
 * @typedef {{id: string, message: Message, deliveries: number, deadline: number}} Reservation deadline: Unix seconds
 * @typedef {{preview: Message, bytes: number}} Preview
 * @typedef {{deliveries: number, reason?: string, failed?: number, died?: number}} Details
 *     reason: of the last failure; failed: when it was, died: when it became a dead letter, Unix seconds
 * @typedef {Preview & {id: string, message?: Message, deliveries: number, deadline: number, reason?: string,
 *           failed?: number}} Held a message that is reserved or delayed until its deadline, Unix seconds
 * @typedef {Preview & {position: number, message?: Message}} Found
 * @typedef {{count: number, reserved: number, delayed: number, dead: number, waiters: number, paused: boolean}} Counts
 * @typedef {Counts & {name: string, next: Preview[], history?: import("./chart.js").History}} QueueState
 * @typedef {{at: number, step: number, count: Array<number | null>, out: Array<number | null>}} QueueHistory
 *     at: when its first step began, Unix seconds; step: seconds of each; out: messages taken in it; null: not known
 * @typedef {{queues: Array<Counts & {name: string, history?: QueueHistory}>, complete: boolean, unnamed: number}} QueueList
 *     complete: whether these are all; unnamed: lists of other clients whose names are not allowed here
 * @typedef {QueueList & {removed: string[]}} QueueListChange the queues that are new or have other counts; removed: the
 *     names of those that hold nothing any more
 * @typedef {"connecting" | "live" | "away" | "fault" | "refused"} Connection
 *     away: no answer, retrying; fault: the app answers but Redis does not; refused: not retried (a token is needed)
 */

/** A failure: the app's stable `code` and sentence, or "offline" when there was no answer. */
export class QueueError extends Error {
  /** @param {string} code @param {string} message @param {number} status 0 without an answer @param {object} answer */
  constructor(code, message, status = 0, answer = {}) {
    super(message);
    this.name = "QueueError";
    this.code = code;
    this.status = status;
    this.answer = answer;
  }

  /** Return this error with more facts in its answer. @param {object} details */
  withDetails(details) {
    return new QueueError(this.code, this.message, this.status, { ...this.answer, ...details });
  }
}

const SLICE_BYTES = 1 << 20; // of a file, sent in one request
const MAX_LINE_BYTES = 16 << 20; // a longer line is sent cut, and the app refuses it
const SILENCE_TIMEOUT_MS = 40_000; // a stream without a byte for so long, comments included, is dead
const NOTHING_CODES = new Set(["empty", "no_result"]); // answers that are no failure, although there is nothing
const CLOCK_TOLERANCE_MS = 2000; // the Date of an answer is in whole seconds
const RETRY_DELAYS_MS = [250, 500, 1000, 2000, 4000, 8000]; // before a stream is opened again

export class QueueClient {
  /**
   * @param {string | null} name null: the app's default queue
   * @param {{base?: string | URL, token?: string, fetch?: typeof fetch}} options
   *     token: only needed if the page has no session
   */
  constructor(name = null, { base = new URL("../../", import.meta.url), token = "", fetch = globalThis.fetch } = {}) {
    this.name = name;
    this.base = base;
    this.token = token;
    this.fetch = (...args) => fetch(...args); // fetch must not be called as a method
    /** By how much the app's clock is ahead of this one, milliseconds, as of the last answer; 0 if they agree. */
    this.clockOffset = 0;
  }

  /** Return a client of another queue of the same app. @param {string} name */
  of(name) {
    return new QueueClient(name, { base: this.base, token: this.token, fetch: this.fetch });
  }

  /** Return the address of a verb. @param {string} verb @param {object} query @returns {URL} */
  url(verb, query = {}) {
    // A URL drops these two, so the address would belong to another queue.
    if (this.name === "." || this.name === "..") throw new QueueError("bad_name", "No URL can hold this name.");
    const path = this.name === null ? "" : `${encodeURIComponent(this.name).replaceAll("%3A", ":")}/`;
    const url = new URL(`api/queue/${path}${verb}`, this.base);
    for (const [key, value] of Object.entries(query)) {
      if (value !== undefined && value !== null && value !== false) {
        url.searchParams.set(key, value === true ? "1" : String(value));
      }
    }
    return url;
  }

  /**
   * Add a message, or several: all or none.
   * @param {Message | object | Array<Message | object>} message other JSON values are stored as their JSON text
   * @param {{front?: boolean, delay?: number, key?: string, signal?: AbortSignal}} options
   *     front: put it first; delay: seconds until it joins the back of the queue (not both);
   *     key: an Idempotency-Key, which makes it safe to send the same push again
   * @returns {Promise<{count: number, message?: Message, pushed?: number, id?: string, ids?: string[]}>}
   *     id, ids: of what is delayed
   */
  push(message, { front = false, delay, key = "", signal } = {}) {
    const body = Array.isArray(message) ? { messages: message } : { message };
    return this.#post("push", { query: { front, delay: delay || undefined }, body, key, signal });
  }

  /**
   * Add every line of a text or file of any size as a message, in slices, with constant memory.
   * `signal` stops it between two slices, so the number it resolves with is exact.
   * @param {string | Blob} text
   * @param {{json?: boolean, progress?: (done: {pushed: number, bytes: number, size: number}) => void,
   *          signal?: AbortSignal}} options json: each line is a JSON value (NDJSON), as `all` exports them
   * @returns {Promise<{pushed: number, bytes: number, size: number}>} a failure has `answer.pushed` too
   */
  async pushLines(text, { json = false, progress = () => {}, signal } = {}) {
    const blob = typeof text === "string" ? new Blob([text]) : text;
    const done = { pushed: 0, bytes: 0, size: blob.size };
    while (done.bytes < blob.size && !signal?.aborted) {
      let lines;
      try {
        lines = await nextLines(blob, done.bytes);
        const body = new Blob([lines], { type: json ? "application/x-ndjson" : "text/plain" });
        done.pushed += (await this.#post("push", { query: json ? {} : { each: "line" }, body })).pushed;
      } catch (error) {
        throw error.withDetails({ pushed: done.pushed + (error.answer.pushed ?? 0) });
      }
      done.bytes += lines.length;
      progress({ ...done });
    }
    return done;
  }

  /**
   * Add one message, byte for byte.
   * @param {Blob | Uint8Array} bytes
   * @returns {Promise<{count: number}>}
   */
  async pushBytes(bytes) {
    const read = bytes instanceof Blob ? await bytesOf(bytes) : bytes;
    return this.#post("push", { body: new Blob([read], { type: "application/octet-stream" }) });
  }

  /**
   * Take the next message, or null if there is none; with `max`, a list of up to that many.
   * @param {{max?: number, wait?: number, key?: string, signal?: AbortSignal}} options wait: seconds to wait for a message
   * @returns {Promise<Message | null | Message[]>}
   */
  async pop({ max, wait, key = "", signal } = {}) {
    const answer = await this.#post("pop", { query: { max, wait }, key, signal });
    return max === undefined ? (answer.success ? answer.message : null) : answer.messages;
  }

  /** Count the queue's messages and clients. @returns {Promise<Counts>} */
  count() {
    return this.#get("count");
  }

  /**
   * Read waiting messages without taking them; the next to be popped comes first.
   * @param {{offset?: number, limit?: number, preview?: number, contains?: string, details?: boolean,
   *          signal?: AbortSignal}} options
   *     preview: return only so many characters of each, as {preview, bytes}; contains: only those that hold this text,
   *     each with its position; details: say of each how often it was delivered and how it failed
   * @returns {Promise<{messages: Array<Message | Preview | Found | Details>, count: number}>}
   */
  all({ offset, limit, preview, contains, details, signal } = {}) {
    return this.#get("all", { offset, limit, preview, contains, details }, signal);
  }

  /**
   * Search the whole queue and yield what holds a text as it is found, the next to be popped first.
   * @param {string} contains @param {{limit?: number, preview?: number, signal?: AbortSignal}} options
   * @returns {AsyncGenerator<Found>}
   */
  async *find(contains, { limit, preview = 200, signal } = {}) {
    const body = await this.#lines({ contains, limit, preview }, signal);
    let rest = "";
    for await (const text of piecesOf(body.pipeThrough(new TextDecoderStream()))) {
      const lines = (rest + text).split("\n");
      rest = lines.pop();
      yield* lines.map((line) => JSON.parse(line));
    }
  }

  /**
   * Read all waiting messages as NDJSON, which `pushLines` takes back, and yield the bytes as they arrive.
   * @param {{contains?: string, signal?: AbortSignal}} options contains: only those that hold this text
   * @returns {AsyncGenerator<Uint8Array>}
   */
  async *exportLines({ contains, signal } = {}) {
    yield* piecesOf(await this.#lines({ contains }, signal));
  }

  /** Return the stream of `all`, a line of JSON a message. */
  async #lines(query, signal) {
    const response = await this.#send(this.url("all", query), { headers: { Accept: "application/x-ndjson" }, signal });
    if (!response.ok) await parseAnswer(response);
    return response.body;
  }

  /**
   * Read the messages that are reserved, the soonest to come back first.
   * @param {{offset?: number, limit?: number, preview?: number, signal?: AbortSignal}} options
   * @returns {Promise<{messages: Held[], count: number}>}
   */
  reserved({ offset, limit, preview, signal } = {}) {
    return this.#get("reserved", { offset, limit, preview }, signal);
  }

  /**
   * Read the messages that are delayed, the soonest to come back first. The id of one can be released (now), extended
   * (later) or acked (never).
   * @param {{offset?: number, limit?: number, preview?: number, signal?: AbortSignal}} options
   * @returns {Promise<{messages: Held[], count: number}>}
   */
  delayed({ offset, limit, preview, signal } = {}) {
    return this.#get("delayed", { offset, limit, preview }, signal);
  }

  /**
   * Take the next message for `lease` seconds; it goes back unless it is acked. null, or [] with `max`, if there is none.
   * @param {{lease?: number, wait?: number, max?: number, signal?: AbortSignal}} options
   * @returns {Promise<Reservation | null | Reservation[]>}
   */
  async reserve({ lease, wait, max, signal } = {}) {
    const answer = await this.#post("reserve", { query: { lease, wait, max }, signal });
    if (max !== undefined) return answer.messages;
    const { id, message, deliveries, deadline } = answer;
    return answer.success ? { id, message, deliveries, deadline } : null;
  }

  /**
   * Acknowledge a reserved message, or several: they are done. The result of one can be kept for who pushed it.
   * @param {string | string[]} id @param {{job?: string, result?: Message | object}} options
   * @returns {Promise<{acked: number}>}
   */
  ack(id, { job, result } = {}) {
    return this.#post("ack", { body: { ...idBody(id), job, result } });
  }

  /**
   * Put a reserved message, or several, back: they are next, or come back in `delay` seconds, or are buried (`dead`).
   * @param {string | string[]} id @param {{delay?: number, dead?: boolean, reason?: string}} options reason: why it failed
   * @returns {Promise<{released: number, dead: number}>} dead: how many were buried, because of `dead` or as they were
   *     delivered too often
   */
  release(id, { delay, dead, reason } = {}) {
    const body = { ...idBody(id), delay: delay || undefined, dead: dead || undefined, reason: reason || undefined };
    return this.#post("release", { body });
  }

  /** Keep a message reserved for `lease` seconds from now. @param {string} id @param {number} lease */
  extend(id, lease) {
    return this.#post("extend", { body: { id, lease } });
  }

  /**
   * Remove a message that is still at that position; if it is not, QueueError "stale".
   * @param {number} position 0: next to be popped @param {Message} message
   * @param {{undo?: boolean}} options undo: keep it for an hour, so that `restore` can put it back where it was
   * @returns {Promise<{message: Message, undo?: string}>}
   */
  remove(position, message, { undo } = {}) {
    return this.#post("remove", { body: { position, message, undo } });
  }

  /** Remove all messages; `undo` can restore them for an hour. @returns {Promise<{cleared: number, undo: string}>} */
  clear() {
    return this.#post("clear");
  }

  /** Undo a clear, or a removal. @param {string} undo @returns {Promise<{restored: number}>} */
  restore(undo) {
    return this.#post("restore", { body: { undo } });
  }

  /**
   * Move messages to another queue, the oldest first.
   * @param {string} to @param {{max?: number, contains?: string, position?: number, message?: Message}} options
   *     max: how many, all by default; contains: only those that hold this text;
   *     position and message: only the message that is still at that position; if it is not, QueueError "stale"
   * @returns {Promise<{moved: number}>}
   */
  move(to, { max, contains, position, message } = {}) {
    return this.#post("move", { body: { to, max, contains, position, message } });
  }

  /** Let pop and reserve give nothing out. Redis clients that use the list directly are not held. */
  pause() {
    return this.#post("pause");
  }

  /** Undo a pause; clients that wait get their messages at once. */
  resume() {
    return this.#post("resume");
  }

  /**
   * Keep the result of a job for who pushed it.
   * @param {string} job 1 to 255 visible ASCII characters, chosen by the producer
   * @param {Message | object} result @param {{keep?: number}} options keep: seconds, a day by default
   */
  setResult(job, result, { keep } = {}) {
    return this.#post("result", { body: { job, result, keep } });
  }

  /**
   * Return the result of a job, or null if there is none; reading it takes nothing.
   * @param {string} job @param {{wait?: number, signal?: AbortSignal}} options wait: seconds to wait for it
   * @returns {Promise<{job: string, result: Message, at: number} | null>} at: Unix seconds
   */
  async result(job, { wait, signal } = {}) {
    const answer = await this.#get("result", { job, wait }, signal);
    return answer.success ? { job: answer.job, result: answer.result, at: answer.at } : null;
  }

  /** List all queues. @returns {Promise<QueueList>} */
  queues() {
    return this.#answer(new URL("api/queues", this.base), { method: "GET" });
  }

  /**
   * Follow the queue: its state now and after every change. The stream reconnects by itself.
   * @param {{queue?: (state: QueueState) => void, connection?: (now: Connection, error?: QueueError) => void}} handlers
   * @param {{next?: number, history?: boolean}} options next: how many of the first messages to show
   * @returns {() => void} call it to stop
   */
  events({ queue = () => {}, connection = () => {} }, { next, history } = {}) {
    let heads = []; // the first messages, which an event has only where they changed
    const whole = (state) => {
      heads = state.next ?? heads;
      queue({ ...state, next: heads });
    };
    return this.#start(this.url("events", { next, history }), { queue: whole }, connection);
  }

  /** The address of the stream of all queues, with their history. @returns {URL} */
  get allEventsUrl() {
    return new URL("api/events?history=1", this.base);
  }

  /**
   * Follow all queues: the whole list now, and again after every interruption; then what changes.
   * @param {{queues?: (list: QueueList) => void, changed?: (change: QueueListChange) => void,
   *          connection?: (now: Connection, error?: QueueError) => void}} handlers
   * @returns {() => void} call it to stop
   */
  allEvents({ queues = () => {}, changed = () => {}, connection = () => {} }) {
    return this.#start(this.allEventsUrl, { queues, changed }, connection);
  }

  /** Give the data of each event to the handler of its name, until the function that is returned is called. */
  #start(url, handlers, connection) {
    const stopped = new AbortController();
    this.#follow(url, handlers, connection, stopped.signal);
    return () => stopped.abort();
  }

  async #follow(url, handlers, connection, stopped) {
    let failures = 0;
    const report = (...now) => stopped.aborted || connection(...now);
    report("connecting");
    while (!stopped.aborted) {
      try {
        for await (const { event, data } of this.#stream(url, stopped)) {
          if (stopped.aborted) return;
          failures = 0;
          if (event in handlers) {
            report("live");
            handlers[event](JSON.parse(data));
          } else if (event === "fault") {
            const answer = JSON.parse(data);
            report("fault", new QueueError(answer.error, answer.message, 503, answer));
          }
        }
        report("away");
      } catch (error) {
        if (error.status === 401 || error.status === 400) return void report("refused", error);
        report(error.status ? "fault" : "away", error);
      }
      await sleep(RETRY_DELAYS_MS[Math.min(failures, RETRY_DELAYS_MS.length - 1)], stopped);
      failures += 1;
    }
  }

  /** Yield the events of one stream until it ends, is stopped, or stays silent for too long. */
  async *#stream(url, stopped) {
    const silent = new AbortController();
    const signal = AbortSignal.any([stopped, silent.signal]);
    const end = () => silent.abort();
    let timer = setTimeout(end, SILENCE_TIMEOUT_MS);
    globalThis.addEventListener?.("offline", end); // the connection is gone, but fetch would not notice for a long time
    try {
      const response = await this.#send(url, { headers: { Accept: "text/event-stream" }, signal });
      if (!response.ok) await parseAnswer(response);
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read().catch(() => ({ done: true }));
        if (done) return;
        clearTimeout(timer);
        timer = setTimeout(end, SILENCE_TIMEOUT_MS);
        const found = parseEvents(rest + value);
        rest = found.rest;
        yield* found.events;
      }
    } finally {
      clearTimeout(timer);
      globalThis.removeEventListener?.("offline", end);
      end();
    }
  }

  async #get(verb, query = {}, signal = undefined) {
    return this.#answer(this.url(verb, query), { method: "GET", signal });
  }

  async #post(verb, { query = {}, body, key = "", signal } = {}) {
    const headers = key ? { "Idempotency-Key": key } : {};
    if (body !== undefined && !(body instanceof Blob)) {
      headers["Content-Type"] = "application/json";
      body = JSON.stringify(body);
    }
    return this.#answer(this.url(verb, query), { method: "POST", headers, body, signal });
  }

  async #answer(url, options) {
    return parseAnswer(await this.#send(url, options));
  }

  async #send(url, options) {
    const headers = this.token ? { ...options.headers, Authorization: `Bearer ${this.token}` } : options.headers;
    try {
      const response = await this.fetch(url, { ...options, headers, cache: "no-store" });
      const offset = Date.parse(response.headers.get("Date")) - Date.now();
      this.clockOffset = Math.abs(offset) > CLOCK_TOLERANCE_MS ? offset : 0;
      return response;
    } catch (error) {
      if (error.name === "AbortError") throw new QueueError("aborted", "Stopped.");
      throw new QueueError("offline", "There was no answer, so it is unknown whether this was done.");
    }
  }
}

/** Return the JSON of an answer. Reject unless it is a success or says that there is nothing. */
async function parseAnswer(response) {
  let answer;
  try {
    answer = await response.json();
  } catch {
    throw new QueueError("no_json", `The answer (${response.status}) did not come from this app.`, response.status);
  }
  if (answer.success === true || NOTHING_CODES.has(answer.error)) return answer;
  throw new QueueError(answer.error ?? "outcome_unknown", answer.message ?? "", response.status, answer);
}

/** Yield what a stream brings as it arrives; reject if it is cut. @param {ReadableStream} stream */
async function* piecesOf(stream) {
  const reader = stream.getReader();
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      yield value;
    }
  } catch (error) {
    throw error.name === "AbortError" ? new QueueError("aborted", "Stopped.") : new QueueError("offline", "The answer was cut.");
  } finally {
    reader.cancel().catch(() => {});
  }
}

function idBody(id) {
  return Array.isArray(id) ? { ids: id } : { id };
}

function sleep(milliseconds, signal) {
  return new Promise((done) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      globalThis.removeEventListener?.("online", end);
      done();
    };
    const timer = setTimeout(end, milliseconds);
    signal.addEventListener("abort", end);
    globalThis.addEventListener?.("online", end);
  });
}

/** Read a blob; a file that was changed or removed meanwhile cannot be read any more. @returns {Promise<Uint8Array>} */
async function bytesOf(blob) {
  try {
    return new Uint8Array(await blob.arrayBuffer());
  } catch (error) {
    throw new QueueError("file", error.message);
  }
}

/**
 * Return the bytes of whole lines that begin at `start`, about one slice.
 * @param {Blob} blob @param {number} start @returns {Promise<Uint8Array>}
 */
export async function nextLines(blob, start, slice = SLICE_BYTES) {
  for (let size = slice; ; size *= 2) {
    const bytes = await bytesOf(blob.slice(start, start + size));
    const end = start + bytes.length === blob.size ? bytes.length : bytes.lastIndexOf(10) + 1;
    if (end > 0) return bytes.subarray(0, end);
    if (size >= MAX_LINE_BYTES) return bytes;
  }
}

/**
 * Return the complete events in a piece of an event stream, and the rest.
 * @param {string} text @returns {{events: Array<{event: string, data: string}>, rest: string}}
 */
export function parseEvents(text) {
  const blocks = text.replaceAll("\r\n", "\n").split("\n\n");
  const rest = blocks.pop();
  const events = [];
  for (const block of blocks) {
    let event = "message";
    const data = [];
    for (const line of block.split("\n")) {
      const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line);
      if (field === "event") event = value;
      if (field === "data") data.push(value);
    }
    if (data.length) events.push({ event, data: data.join("\n") });
  }
  return { events, rest };
}
