/**
 * The requests and responses of the API. Times are Unix seconds, durations are seconds.
 *
 * @typedef {string | {base64: string}} Message text, or bytes that are not UTF-8
 * @typedef {{shape: string, text: string, facts: Record<string, string | number | boolean>}} Summary what a message of
 *     another program is, such as `t.charge(4, amount=6.0)`
 * @typedef {{preview: Message, bytes: number, summary?: Summary}} Preview the beginning of a message, and its whole size
 * @typedef {{count: number, reserved: number, delayed: number, dead: number, waiters: number, paused: boolean}} Counts
 *     count: messages that wait; waiters: clients that wait for one
 * @typedef {{age: {seconds: number, at_least: boolean} | null}} Aged
 *     age: how long the next message has waited; null: unknown, or there is none
 * @typedef {{id: string, message: Message, deliveries: number, max_deliveries: number, deadline: number,
 *            queue?: string}} Reservation
 *     max_deliveries: after that many, it becomes a dead letter; queue: the one it was taken from, if several were named
 * @typedef {{wait?: number, by?: string, key?: string, signal?: AbortSignal}} PopOptions
 *     wait: seconds to wait for a message; by: the name of this consumer; key: an Idempotency-Key, with which the same
 *     pop can be retried safely
 * @typedef {{lease?: number, wait?: number, by?: string, signal?: AbortSignal}} ReserveOptions
 *     lease: seconds until the message returns; wait: seconds to wait for one; by: the name of this consumer
 * @typedef {{acks?: Array<string | {id: string, job?: string, result?: any}>,
 *           releases?: Array<string | {id: string, delay?: number, dead?: boolean, unstarted?: boolean,
 *                                      reason?: string, job?: string}>,
 *           extends?: Array<string | {id: string, lease?: number}>}} Settlement
 * @typedef {{deliveries: number, reason?: string, failed?: number, died?: number}} Details
 *     reason: why it last failed; failed: when it last failed; died: when it became a dead letter, even if it was moved
 *     back
 * @typedef {{reason: string, count: number, first: number, last: number, example: string}} FailureReason
 *     reason: with # for each number and <id> for each id; first, last: when messages failed; example: the latest
 * @typedef {Preview & {id: string, message?: Message, deliveries: number, deadline: number, reason?: string,
 *           failed?: number, died?: number, by?: string}} InFlight
 *     a message that is reserved or delayed until its deadline; by: who reserved it last
 * @typedef {{by: string, reserved: number, oldest: number | null, waiting: number}} Consumer
 *     by: "" for all that gave no name; oldest: how long it has held the oldest of its messages; waiting: its requests
 *     that wait for a message
 * @typedef {{at_once: number, per_second: number, max_deliveries: number}} Settings
 *     at_once: maximum number of reservations at a time; per_second: maximum number of messages popped or reserved per
 *     second; max_deliveries: deliveries after which a message becomes a dead letter, instead of the server's
 * @typedef {Preview & {position: number, message?: Message}} Found a message that contains the text searched for
 * @typedef {{at: number, step: number, max: (number | null)[], count: (number | null)[], in: (number | null)[],
 *            out: (number | null)[]}} History
 *     a queue's last minutes in steps of `step` seconds, the first of which began at `at`: the greatest depth and the
 *     last one in each step, and the numbers of messages that came in and went out; null: unknown
 * @typedef {Counts & Aged & {name: string, next: Preview[], history?: History}} QueueState next: the first messages
 * @typedef {Counts & Aged & {name: string, history?: Pick<History, "at" | "step" | "count" | "out">}} ListedQueue
 * @typedef {{queues: ListedQueue[], complete: boolean, unnamed: number}} QueueList
 *     complete: whether these are all; unnamed: the number of lists in Redis with invalid queue names
 * @typedef {QueueList & {removed: string[]}} QueueListChange
 *     queues: those that are new or have other counts; removed: the names of those that are empty now
 * @typedef {"connecting" | "live" | "away" | "fault" | "refused"} Connection
 *     away: no response, retrying; fault: the server responds with an error, retrying; refused: not retried, as a token
 *     is needed or the request is invalid
 */

/** The counts of an empty queue. @type {Readonly<Counts>} */
export const NO_COUNTS = Object.freeze({ count: 0, reserved: 0, delayed: 0, dead: 0, waiters: 0, paused: false });

/** The numbers among a queue's counts, in the order in which the page shows them. */
export const COUNTS = Object.freeze(Object.keys(NO_COUNTS).filter((key) => key !== "paused"));

/**
 * Return the counts of a queue without the other fields of an event; a count that it lacks is 0.
 * @param {any} event @returns {Counts}
 */
export function countsOf(event) {
  const entries = Object.entries(NO_COUNTS).map(([key, none]) => [key, event[key] ?? none]);
  return /** @type {any} */ (Object.fromEntries(entries));
}
