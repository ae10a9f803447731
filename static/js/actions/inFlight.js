import { QueueError } from "../client.js";
import { endReservation, extendReservation } from "../state/inHand.js";
import { deadOf } from "../state/names.js";
import { timeOf } from "../text/format.js";
import { leaseEnd } from "./taking.js";

const MAX_SHIFT = 100; // how far from its last known place in the list to search for a message

/**
 * The actions on reserved and delayed messages, by their ids. Each action resolves with the server's
 * answer, undefined if it failed.
 */
export function createInFlight({ client, store, notices, curl, run, keep, linkTo, t, language }) {
  /** @param {string} id */
  async function ack(id) {
    const answer = await run(curl.ack(id), () => client.ack(id));
    if (!answer) return undefined;
    store.change(endReservation, id);
    notices.say(t("acked"));
    return answer;
  }

  /**
   * Put back, now or in `delay` seconds, or bury.
   * @param {string} id @param {{delay?: number, dead?: boolean, reason?: string}} options
   */
  async function release(id, options = {}) {
    const answer = await run(curl.release(id, options), () => client.release(id, options));
    if (!answer) return undefined;
    store.change(endReservation, id);
    if (answer.dead) notices.say(t(options.dead ? "buried" : "buried.often"), linkTo(deadOf(store.state.name)));
    else if (options.delay) notices.say(t("backed.later", { time: timeIn(options.delay) }));
    else notices.say(t("backed", { n: 1 }));
    return answer;
  }

  /** Return the time of day in some seconds. */
  const timeIn = (seconds) => timeOf(Date.now() + seconds * 1000, language);

  /** @param {string} id @param {number} lease seconds */
  async function extend(id, lease) {
    const answer = await run(curl.extend(id, lease), () => client.extend(id, lease));
    if (!answer) return undefined;
    store.change(extendReservation, id, leaseEnd(lease));
    notices.say(t("extended", { n: lease }));
    return answer;
  }

  /**
   * Remove a delayed message; it stays in hand, so that it can be put back.
   * @param {string} id @param {number} place its last known place in the list
   */
  async function removeDelayed(id, place) {
    let message;
    const answer = await run(curl.ack(id), async () => {
      ({ message } = await find("delayed", id, place, "remove.stale"));
      return client.ack(id);
    });
    return answer && keep("remove", [{ message }]);
  }

  /**
   * Read a whole message that is reserved or delayed.
   * @param {"reserved" | "delayed"} kind @param {string} id @param {number} place its last known place in the list
   * @returns {Promise<import("../client/types.js").InFlight | undefined>}
   */
  const readInFlight = (kind, id, place) => run(curl[kind](), () => find(kind, id, place, "read.stale"));

  /** Return a whole message, looking for it near its last known place; if it is gone, fail with the text of `stale`. */
  async function find(kind, id, place, stale) {
    const readAt = async (offset) => (await client[kind]({ offset, limit: 1 })).messages[0];
    const found = await readAt(place);
    if (found?.id === id) return found;
    const start = Math.max(0, place - MAX_SHIFT);
    const { messages } = await client[kind]({ offset: start, limit: 2 * MAX_SHIFT, preview: 1 });
    const at = messages.findIndex((one) => one.id === id);
    const again = at < 0 ? undefined : await readAt(start + at);
    if (again?.id !== id) throw new QueueError("moved", t(stale));
    return again;
  }
  return { ack, release, extend, removeDelayed, readInFlight };
}
