import { addInHand, dropFromHand, restoreInHand } from "../state/inHand.js";
import { LOST_CODES, newKey, retryWithKey } from "./idempotency.js";
import { UNDO_TTL_MS } from "./wholeQueue.js";

/** Pop and reserve, and what can be done with the messages in hand. */
export function createTaking({ client, store, notices, recent, curl, run, push, restore, t }) {
  let unanswered = null; // a pop whose response was lost: {options, key}

  /**
   * Pop; resolves with the list of popped messages. If the response to the last pop was lost, that pop is retried
   * instead, so that its messages are not lost.
   * @param {{max?: number, wait?: number}} options @param {AbortSignal} [signal] stops waiting
   */
  async function pop(options, signal) {
    const { options: { max }, key } = unanswered ?? { options, key: newKey() };
    const answer = await run(curl.pop(options), async () => {
      try {
        const found = await retryWithKey((sent) => popWithKey({ ...options, max, key: sent }, signal), key);
        unanswered = null;
        return found;
      } catch (error) {
        unanswered = LOST_CODES.has(error.code) ? { options, key } : null;
        throw error;
      }
    }, options.wait > 0);
    return answer === undefined ? undefined : keep("pop", listOf(answer).map((message) => ({ message })));
  }

  /** Pop. If waiting was stopped while a message was on its way, fetch that message by its key. */
  async function popWithKey(options, signal) {
    try {
      return await client.pop({ ...options, signal });
    } catch (error) {
      if (error.code !== "aborted") throw error;
      return client.pop({ max: options.max, key: options.key });
    }
  }

  /**
   * Reserve; resolves with the list of reserved messages. If the response is lost, they return when the lease ends.
   * @param {{lease: number, max?: number, wait?: number}} options @param {AbortSignal} [signal] stops waiting
   */
  async function reserve(options, signal) {
    const answer = await run(curl.reserve(options), () => client.reserve({ ...options, signal }), options.wait > 0);
    if (answer === undefined) return undefined;
    const { lease } = options;
    return keep("reserve", listOf(answer).map(({ id, message, deliveries }) => {
      return { message, deliveries, reservation: id, lease, until: leaseEnd(lease) };
    }));
  }

  /**
   * Keep messages in hand, and those that are no longer in the queue in this browser.
   * @param {"pop" | "remove" | "reserve"} how @param {object[]} messages the newest last
   */
  function keep(how, messages) {
    const added = messages.map((one) => ({ how, key: newKey(), time: Date.now(), ...one }));
    if (added.length && how !== "reserve") recent.add(added);
    if (added.length) store.change(addInHand, added);
    return added;
  }

  const puttingBack = new Set(); // ids

  /**
   * Put one message back: at the front, or where it was if its removal can be undone. The key and the undo each work
   * once, so that a copy of this tab cannot put it back again.
   */
  function putOneBack({ message, key, undo, time }) {
    const canUndo = undo && Date.now() < time + UNDO_TTL_MS;
    return canUndo ? restore(undo) : push(message, { front: true, key });
  }

  /**
   * Put popped and removed messages back one by one, the newest first, so that they are in their old order. Messages
   * that are already on their way back are skipped.
   * @param {import("../state/inHand.js").InHand[]} messages newest first
   */
  async function putBack(messages) {
    const list = messages.filter(({ id }) => !puttingBack.has(id));
    for (const { id } of list) puttingBack.add(id);
    const done = { backed: 0, restored: 0 };
    for (const one of list) {
      const answer = await putOneBack(one);
      if (!answer) break;
      recent.drop(one.key);
      store.change(dropFromHand, one.id);
      done[answer.restored ? "restored" : "backed"] += 1;
    }
    for (const { id } of list) puttingBack.delete(id);
    if (done.backed) notices.say(t("backed", { n: done.backed }));
    if (done.restored) notices.say(t("restored", { n: done.restored }));
  }

  /** Discard a message in hand. If it was popped or removed, this was the last copy, so that an undo is offered. */
  function discard(one) {
    store.change(dropFromHand, one.id);
    if (one.how === "reserve") return;
    notices.say(t("discarded"), { text: t("undo"), action: () => store.change(restoreInHand, one) });
  }
  return { pop, reserve, keep, putBack, discard };
}

/** Return the result of pop or reserve as a list: with `max` it is one, without it is a message or null. */
function listOf(answer) {
  return Array.isArray(answer) ? answer : [answer].filter((one) => one !== null);
}

/** Return when a lease ends by this clock, which may differ from the server's; the duration is the same on both. */
export function leaseEnd(lease) {
  return Date.now() + lease * 1000;
}
