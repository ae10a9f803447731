/** Settles messages in batches: those that end while a request is on its way go into the next one. */
import { meaningOf, outcomeOf, reasonOf, releaseOf } from "./failures.js";
import { sleep, within } from "./timing.js";

/** @import { QueueClient } from "./client.js" */
/** @import { QueueMessage } from "./message.js" */
/** @import { RetryDelay } from "./failures.js" */

const BATCH = 500;
const REQUEST_SECONDS = 30; // a request that takes longer is repeated
const RETRY_SECONDS = [0.1, 0.25, 0.5, 1, 2];

/**
 * @typedef {{message: QueueMessage, error?: unknown}} Ending
 * @typedef {{settled: (ending: Ending) => void, warn: (text: string, error?: unknown) => void,
 *            failed: (error: unknown) => void, away: (error: unknown) => void, back: () => void}} Report
 *     settled: the server has confirmed it; failed: the server refuses this client; away, back: it is (not) available
 */

export class Settler {
  /** @type {Ending[]} */
  #pending = [];
  /** @type {Promise<void> | null} */
  #sending = null;
  #client;
  #retryDelay;
  #report;
  #stopped;

  /**
   * @param {QueueClient} client @param {RetryDelay | undefined} retryDelay @param {Report} report
   * @param {AbortSignal} stopped ends it; what is not settled then returns when its lease ends
   */
  constructor(client, retryDelay, report, stopped) {
    this.#client = client;
    this.#retryDelay = retryDelay;
    this.#report = report;
    this.#stopped = stopped;
  }

  /** Settle a message that has an outcome. @param {Ending} ending */
  add(ending) {
    this.#pending.push(ending);
    this.#sending ??= this.#send();
  }

  /** The number of messages that wait for the next request. */
  get backlog() {
    return this.#pending.length;
  }

  /** Resolve once all is settled, or it is stopped. */
  async done() {
    await this.#sending;
  }

  async #send() {
    await Promise.resolve(); // others of this moment join
    while (this.#pending.length && !this.#stopped.aborted) await this.#settle(this.#pending.splice(0, BATCH));
    this.#sending = null;
  }

  /** @param {Ending[]} endings */
  async #settle(endings) {
    const items = this.#itemsOf(endings);
    for (let tries = 0; ; tries += 1) {
      try {
        const { stale } = await within(REQUEST_SECONDS, this.#stopped, (signal) => this.#client.settle(items, { signal }));
        this.#report.back();
        return this.#confirm(endings, new Set(stale), tries > 0);
      } catch (error) {
        if (this.#stopped.aborted) return;
        const meaning = meaningOf(error);
        if (meaning === "fatal") return this.#report.failed(error);
        if (meaning === "content") return this.#refused(endings, error);
        this.#report.away(error);
      }
      await sleep(RETRY_SECONDS[Math.min(tries, RETRY_SECONDS.length - 1)], this.#stopped);
    }
  }

  /** @param {Ending[]} endings */
  #itemsOf(endings) {
    /** @type {any[]} */
    const acks = [];
    /** @type {any[]} */
    const releases = [];
    for (const { message, error } of endings) {
      const { id } = message;
      const outcome = message.outcome ?? outcomeOf(error);
      if (outcome.kind !== "ack") releases.push(releaseOf(message, outcome, this.#retryDelay, error));
      else acks.push(outcome.job === undefined ? id : { id, job: outcome.job, result: outcome.result });
    }
    return { acks, releases };
  }

  /** @param {Ending[]} endings @param {Set<string>} stale @param {boolean} isRepeated an earlier request may have arrived */
  #confirm(endings, stale, isRepeated) {
    for (const ending of endings) {
      const { id, outcome } = ending.message;
      if (!stale.has(id)) this.#report.settled(ending);
      else if (outcome?.kind !== "unstarted" && (outcome?.kind === "ack" || !isRepeated)) {
        this.#report.warn(`The lease of message ${id} ended before its work, so it is delivered again.`);
      }
    }
  }

  /**
   * Settle each by itself if one of them is refused. One that is refused by itself has a bad job or result: it becomes a
   * dead letter, and its job failed, unless that is refused too.
   * @param {Ending[]} endings @param {unknown} error
   */
  async #refused(endings, error) {
    if (endings.length > 1) {
      for (const ending of endings) await this.#settle([ending]);
      return;
    }
    const [{ message }] = endings;
    const { outcome } = message;
    const reason = `The server refused how it ended: ${reasonOf(error)}`;
    if (outcome?.kind === "ack") message.outcome = { kind: "reject", reason, job: outcome.job };
    else if (outcome?.job !== undefined) message.outcome = { ...outcome, job: undefined };
    else return this.#report.warn(`Message ${message.id} returns when its lease ends. ${reason}`);
    await this.#settle([{ ...endings[0], error: outcome?.kind === "ack" ? error : endings[0].error }]);
  }
}
