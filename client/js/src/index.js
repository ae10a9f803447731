/**
 * The client of Seequeue: a method for each operation of its API, and `work`, which processes messages.
 *
 *     import { QueueClient, Reject } from "seequeue";
 *
 *     const mails = new QueueClient("mails");
 *     await mails.push({ to: "ana@example.com" });
 *     await mails.work(async (message) => send(message.json()), { concurrency: 4 });
 */
import { QueueClient as ApiClient } from "./client.js";
import { Worker } from "./worker.js";

export { QueueError } from "./client/errors.js";
export { QueueMessage, Reject } from "./message.js";

/** @import { QueueMessage } from "./message.js" */

/** @typedef {import("./worker.js").WorkOptions} WorkOptions */
/** @typedef {import("./message.js").Outcome} Outcome */
/** @typedef {import("./client/types.js").Counts} Counts */
/** @typedef {import("./client/types.js").Message} Message */
/** @typedef {import("./client/types.js").QueueState} QueueState */
/** @typedef {import("./client/types.js").Reservation} Reservation */
/** @typedef {import("./client/types.js").Settlement} Settlement */

export class QueueClient extends ApiClient {
  /**
   * Call a handler for each message, or with `batch` for a list of up to that many, until `signal` is aborted.
   *
   * A message is acked once the handler has ended, whatever it returns. If the handler throws, the message is delivered
   * again later, a list as a whole, with the error as the reason; after its last delivery it becomes a dead letter, and
   * for a Reject at once. Leases are renewed while the handler runs.
   * @template {number | undefined} [Batch=undefined]
   * @param {(messages: Batch extends number ? QueueMessage[] : QueueMessage) => unknown} handler
   * @param {WorkOptions & {batch?: Batch}} options
   * @returns {Promise<void>} rejects with a QueueError if the server refuses this client, such as for a wrong token; while
   *     the server is not available, it is waited for
   */
  async work(handler, options = {}) {
    await new Worker(this, handler, options).run();
  }
}
