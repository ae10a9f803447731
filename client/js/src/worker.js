/** The loop of `work`: it reserves messages, a few ahead, calls the handler, and renews leases meanwhile. */
import { meaningOf, outcomeOf, reasonOf } from "./failures.js";
import { QueueMessage } from "./message.js";
import { Settler } from "./settler.js";
import { sleep, within } from "./timing.js";

/** @import { QueueClient } from "./client.js" */
/** @import { Outcome } from "./message.js" */
/** @import { RetryDelay } from "./failures.js" */
/** @import { Ending, Report } from "./settler.js" */

/**
 * @typedef {object} WorkOptions
 * @property {number} [concurrency] the maximum number of calls of the handler at a time, 1 by default
 * @property {number} [lease] seconds after which the message of a process that was killed returns, 30 by default. The
 *     lease is renewed while the handler runs
 * @property {number} [wait] seconds that one request waits for a message, 20 by default
 * @property {string} [by] the name of this worker, as `consumers` lists it; in Node by default its host and process id
 * @property {AbortSignal} [signal] stops it: messages whose work has begun are finished, the others are released
 * @property {number} [grace] seconds after which it then releases what is not finished, 30 by default
 * @property {RetryDelay} [retryDelay] seconds until a message that failed is delivered again, or a function that returns
 *     them; by default 1 to 2 after the first delivery, doubling each time, an hour at most
 * @property {(message: QueueMessage) => void} [onStart] the handler is called
 * @property {(message: QueueMessage) => void} [onDone] it is acked
 * @property {(message: QueueMessage, error: unknown) => void} [onRetry] it will be delivered again; by default a warning
 * @property {(message: QueueMessage, error: unknown) => void} [onReject] it became a dead letter; by default a warning
 * @property {(text: string, error?: unknown) => void} [onWarning] such as that the server is not available: once, until
 *     it is again; console.warn by default
 */

const HAND_OVER_SECONDS = 0.5; // a message that no handler has begun after this time goes to other workers
const AHEAD_MS = 150; // messages are reserved ahead that will begin within this time
const MAX_AHEAD = 256;
const PAUSE_AHEAD_MS = 60_000; // how long none are reserved ahead after some had to be handed over
const MAX_RESERVED = 1000; // of one request
const MAX_BACKLOG = 1000; // no more are reserved while so many acks wait to be sent
const RETRY_SECONDS = [0.25, 0.5, 1, 2, 4];
const EMPTY_SECONDS = 0.2; // between two requests that found nothing and did not wait
const FLUSH_SECONDS = 5; // for the last acks

export class Worker {
  #queue;
  #handler;
  #options;
  #handOver = { timer: /** @type {any} */ (undefined), resumeAhead: 0 };
  /** Reserved, but not begun. @type {{message: QueueMessage, since: number}[]} */
  #waiting = [];
  /** The messages of each call of the handler. @type {Set<QueueMessage[]>} */
  #running = new Set();
  /** @type {Map<string | null, Settler>} */
  #settlers = new Map();
  /** How long a call takes, a moving average in milliseconds. */
  #average = Infinity;
  #isAway = false;
  #isMore = false; // whether the queue seems to hold more than was reserved last
  #stop = new AbortController(); // no more messages are taken
  #end = new AbortController(); // no more requests are made
  /** @type {{error: unknown} | null} */
  #failure = null;
  #changed = () => {}; // ends a wait for a call of the handler to end
  /** @type {Report} */
  #report = {
    settled: (ending) => this.#settled(ending),
    warn: (text, error) => this.#warn(text, error),
    failed: (error) => this.#fail(error),
    away: (error) => this.#away(error),
    back: () => this.#back(),
  };

  /**
   * @param {QueueClient} queue @param {(messages: any) => unknown} handler
   * @param {WorkOptions & {batch?: number}} options
   */
  constructor(queue, handler, options) {
    this.#queue = queue;
    this.#handler = handler;
    const { concurrency = 1, batch, lease = 30, wait = 20, by = nameOfProcess(), grace = 30 } = options;
    if (typeof handler !== "function") throw new TypeError("work needs a function that handles a message");
    for (const [name, value] of Object.entries({ concurrency, batch: batch ?? 1 })) {
      if (!Number.isInteger(value) || value < 1) throw new RangeError(`${name} must be an integer of at least 1`);
    }
    for (const [name, value] of Object.entries({ lease, wait, grace })) {
      if (typeof value !== "number" || !(value >= 0)) throw new RangeError(`${name} must be a number of at least 0`);
    }
    this.#options = { ...options, concurrency, batch, lease, wait, by, grace };
  }

  async run() {
    const { signal, grace } = this.#options;
    const stop = () => this.#stop.abort();
    this.#stop.signal.addEventListener("abort", () => {
      this.#releaseWaiting(() => true);
      this.#changed();
    });
    signal?.addEventListener("abort", stop);
    if (signal?.aborted) stop();
    const renewing = this.#renewLeases();
    try {
      await this.#reserve();
      this.#releaseWaiting(() => true);
      await Promise.race([this.#finish(), sleep(grace, this.#end.signal)]);
      this.#releaseRest();
      const flushed = await Promise.race([this.#flush(), sleep(FLUSH_SECONDS, this.#end.signal)]);
      if (!flushed) this.#warn("The server did not take the last acks in time: those messages are delivered again.");
    } finally {
      signal?.removeEventListener("abort", stop);
      this.#end.abort();
      clearTimeout(this.#handOver.timer);
      await renewing;
    }
    if (this.#failure) throw this.#failure.error;
  }

  // --- taking messages

  async #reserve() {
    const { lease, wait, by } = this.#options;
    for (let failures = 0; !this.#stop.signal.aborted; ) {
      const max = this.#room();
      if (!max) {
        await this.#change();
        continue;
      }
      const began = performance.now();
      const options = { max, lease, wait: this.#isIdle() ? wait : 0, by }; // a busy worker leaves what comes to others
      this.#isMore = false;
      try {
        const request = (/** @type {AbortSignal} */ signal) => this.#queue.reserve({ ...options, signal });
        const found = await within(options.wait + 15, this.#stop.signal, request);
        this.#back();
        failures = 0;
        this.#isMore = found.length === max;
        const since = performance.now();
        for (const one of found) {
          this.#waiting.push({ message: new QueueMessage(one, one.queue ?? this.#queue.name), since });
        }
        if (this.#stop.signal.aborted) return;
        this.#start();
        if (found.length || !options.wait || since - began > EMPTY_SECONDS * 1000) continue;
        await sleep(EMPTY_SECONDS, this.#stop.signal); // such as while the server is being stopped
      } catch (error) {
        if (this.#stop.signal.aborted) return;
        if (isHeld(error)) {
          this.#back();
          await sleep(EMPTY_SECONDS, this.#stop.signal); // it has waited for a time
          continue;
        }
        if (meaningOf(error) !== "transient") return this.#fail(error);
        this.#away(error);
        const delay = RETRY_SECONDS[Math.min(failures, RETRY_SECONDS.length - 1)];
        await sleep(delay * (0.75 + Math.random() / 2), this.#stop.signal);
        failures += 1;
      }
    }
  }

  /** Return the number of messages to reserve now. */
  #room() {
    const { concurrency, batch = 1 } = this.#options;
    if ([...this.#settlers.values()].some(({ backlog }) => backlog >= MAX_BACKLOG)) return 0;
    const isPaused = performance.now() < this.#handOver.resumeAhead;
    const ahead = isPaused ? 0 : Math.min(MAX_AHEAD, Math.floor((concurrency * batch * AHEAD_MS) / this.#average));
    const total = concurrency * batch + ahead;
    const room = total - this.#running.size * batch - this.#waiting.length;
    return this.#isIdle() || (this.#isMore && room > total / 4) ? Math.min(room, MAX_RESERVED) : 0;
  }

  #isIdle() {
    return this.#running.size < this.#options.concurrency && this.#waiting.length === 0;
  }

  /** Resolve once a call of the handler has ended, or the worker is stopped. */
  #change() {
    return new Promise((/** @type {(value?: undefined) => void} */ resolve) => (this.#changed = resolve));
  }

  // --- calling the handler

  #start() {
    const { concurrency, batch = 1 } = this.#options;
    while (this.#waiting.length && this.#running.size < concurrency) {
      // one that was delivered before is handled alone: it may be what made its batch fail
      const again = this.#waiting.findIndex(({ message }) => message.deliveries > 1);
      const number = again < 0 ? batch : Math.min(batch, Math.max(again, 1));
      this.#handle(this.#waiting.splice(0, number).map(({ message }) => message));
    }
    clearTimeout(this.#handOver.timer);
    if (!this.#waiting.length) return;
    const left = HAND_OVER_SECONDS * 1000 - (performance.now() - this.#waiting[0].since);
    this.#handOver.timer = setTimeout(() => this.#handWaitingOver(), Math.max(left, 50));
  }

  /** @param {QueueMessage[]} messages */
  async #handle(messages) {
    this.#running.add(messages);
    const began = performance.now();
    /** @type {{error: unknown} | null} */
    let thrown = null;
    for (const message of messages) this.#call(this.#options.onStart, message);
    try {
      await this.#handler(this.#options.batch === undefined ? messages[0] : messages);
    } catch (error) {
      thrown = { error };
    }
    const time = performance.now() - began;
    this.#average = this.#average === Infinity ? time : this.#average * 0.8 + time * 0.2;
    if (this.#running.delete(messages)) {
      for (const message of messages) {
        message.outcome ??= thrown ? outcomeOf(thrown.error) : { kind: "ack" };
        this.#settle({ message, error: thrown?.error });
      }
    }
    this.#start();
    this.#changed();
  }

  // --- ending messages

  /** @param {Ending} ending */
  #settle(ending) {
    const { queue } = ending.message;
    let settler = this.#settlers.get(queue);
    if (!settler) {
      settler = new Settler(this.#clientOf(queue), this.#options.retryDelay, this.#report, this.#end.signal);
      this.#settlers.set(queue, settler);
    }
    settler.add(ending);
  }

  /** @param {string | null} queue */
  #clientOf(queue) {
    return queue === null || queue === this.#queue.name ? this.#queue : this.#queue.of(queue);
  }

  /** Call the hook of a message that is settled. @param {Ending} ending */
  #settled({ message, error }) {
    const { outcome, deliveries, isLastDelivery } = message;
    if (!outcome || outcome.kind === "unstarted") return;
    if (outcome.kind === "ack") return this.#call(this.#options.onDone, message);
    const isDead = outcome.kind === "reject" || isLastDelivery;
    const warn = () => {
      const end = isDead ? "it became a dead letter" : "it is retried later";
      const text = `Delivery ${deliveries} of message ${message.id} failed, and ${end}: `;
      this.#warn(error === undefined ? text + reasonOf(outcome.reason) : text, error);
    };
    this.#call((isDead ? this.#options.onReject : this.#options.onRetry) ?? warn, message, error);
  }

  /** Release what waits and is chosen. @param {(since: number) => boolean} isChosen */
  #releaseWaiting(isChosen) {
    const released = this.#waiting.filter(({ since }) => isChosen(since));
    this.#waiting = this.#waiting.filter(({ since }) => !isChosen(since));
    for (const { message } of released) this.#release(message, { kind: "unstarted" });
    return released.length;
  }

  /** Let other workers have what waits here for long: the handlers are slower than it seemed. */
  #handWaitingOver() {
    const before = performance.now() - HAND_OVER_SECONDS * 1000;
    if (this.#releaseWaiting((since) => since <= before)) {
      this.#handOver.resumeAhead = performance.now() + PAUSE_AHEAD_MS;
    }
    this.#start();
  }

  /** @param {QueueMessage} message @param {Outcome} outcome */
  #release(message, outcome) {
    message.outcome ??= outcome;
    message.end();
    this.#settle({ message });
  }

  // --- keeping leases

  /** Renew the leases of all that is in hand, in one request, until the end. */
  async #renewLeases() {
    const { lease } = this.#options;
    for (let delay = lease / 3; ; ) {
      await sleep(delay, this.#end.signal);
      if (this.#end.signal.aborted) return;
      const held = [...this.#waiting.map(({ message }) => message), ...[...this.#running].flat()];
      const queues = [...new Set(held.map(({ queue }) => queue))];
      const renewed = await Promise.all(queues.map((name) => this.#renew(name, held.filter(({ queue }) => queue === name))));
      delay = renewed.every(Boolean) ? lease / 3 : Math.min(1, lease / 6);
    }
  }

  /** @param {string | null} queue @param {QueueMessage[]} messages @returns {Promise<boolean>} */
  async #renew(queue, messages) {
    const client = this.#clientOf(queue);
    const { lease } = this.#options;
    try {
      for (let start = 0; start < messages.length; start += MAX_RESERVED) {
        const part = messages.slice(start, start + MAX_RESERVED);
        const items = { extends: part.map(({ id }) => ({ id, lease })) };
        const { stale } = await within(Math.max(1, lease / 3), this.#end.signal, (signal) => client.settle(items, { signal }));
        const deadline = (Date.now() + client.clockOffset) / 1000 + lease;
        const ended = new Set(stale);
        for (const message of part) {
          if (ended.has(message.id)) message.end();
          else message.deadline = deadline;
        }
        this.#waiting = this.#waiting.filter(({ message }) => !ended.has(message.id));
      }
      return true;
    } catch (error) {
      if (this.#end.signal.aborted) return true;
      if (meaningOf(error) === "transient") this.#away(error);
      else this.#fail(error);
      return false;
    }
  }

  // --- the end

  /** Resolve once everything in hand is finished. */
  async #finish() {
    this.#start();
    while (this.#running.size || this.#waiting.length) await this.#change();
  }

  /** Release what is not finished in time. */
  #releaseRest() {
    this.#releaseWaiting(() => true);
    const outcome = /** @type {Outcome} */ ({ kind: "retry", delay: 0, reason: "The worker stopped before the work ended" });
    for (const message of [...this.#running].flat()) this.#release(message, outcome);
    this.#running.clear();
  }

  async #flush() {
    await Promise.all([...this.#settlers.values()].map((settler) => settler.done()));
    return true;
  }

  /** End with an error: the server refuses this client. @param {unknown} error */
  #fail(error) {
    this.#failure ??= { error };
    this.#stop.abort();
  }

  // --- hooks and warnings

  /** @param {unknown} error */
  #away(error) {
    if (!this.#isAway) this.#warn(`The server is not available; trying again. ${reasonOf(error)}`);
    this.#isAway = true;
  }

  #back() {
    this.#isAway = false;
    this.#changed();
  }

  /** @param {string} text @param {unknown} [error] */
  #warn(text, error) {
    try {
      (this.#options.onWarning ?? console.warn)(...(error === undefined ? [text] : [text, error]));
    } catch {
      // a logger that fails must not end the worker
    }
  }

  /** Call a hook, whose failure is only a warning. @param {((...values: any[]) => unknown) | undefined} hook @param {...any} values */
  async #call(hook, ...values) {
    try {
      await hook?.(...values);
    } catch (error) {
      this.#warn("A hook of work failed:", error);
    }
  }
}

/** Return whether an error of reserve means that there may be messages, but none are delivered now. @param {any} error */
const isHeld = (error) => error?.code === "paused" || error?.code === "limited";

/** Return the name of this process in Node: its host and its id. */
function nameOfProcess() {
  const { process } = globalThis;
  const os = process?.getBuiltinModule?.("node:os");
  return os && `${os.hostname()}:${process.pid}`.replace(/[^!-~]/g, "?").slice(-64);
}
