import { QueueError } from "../client.js";
import { bytesOf, headOf, oneLine, timeOf } from "../text/format.js";
import { deadOf, pageUrl } from "../state/names.js";
import { discarded, ended, extended, paused, recalled, took } from "../state/queue.js";

const MAX_ATTEMPTS = 3; // at an operation whose answer was lost
const RETRY_DELAY_MS = 700;
const SLOW_MS = 3000; // after this the page says that it is still waiting
const LOST_CODES = new Set(["offline", "outcome_unknown", "no_json"]); // it may have been done: a proxy's own page says nothing
const MAX_MOVED = 100; // how far from where it was shown a message is looked for
const LOOK_CHARACTERS = 200; // of each
const NAMED_CHARACTERS = 40; // of a message that was removed
export const UNDO_TTL_MS = 3600_000; // the app keeps cleared and removed messages for so long

/**
 * Everything a visitor can do to the queue, without any DOM. Each action shows its curl command and reports its own
 * failure, then resolves with undefined (the queue's answer on success), so callers need no `catch`.
 *
 * @param {{client: import("../client.js").QueueClient, store: object, notices: object, recent: object, curl: object,
 *          showCommand: (command: string) => void, t: (key: string, values?: object) => string, language: string}} parts
 */
export function createActions({ client, store, notices, recent, curl, showCommand, t, language }) {
  /** Show a curl command, do the work, and report its failure, and that it takes long unless it `isWaiting`. */
  async function run(command, work, isWaiting = false) {
    if (command) showCommand(command);
    const settled = isWaiting ? () => {} : notices.sayAfter(SLOW_MS, t("slow"));
    try {
      const result = await work();
      notices.clear();
      return result;
    } catch (error) {
      if (error.code !== "aborted") notices.fail(error);
      return undefined;
    } finally {
      settled();
    }
  }

  /** Push once. A caller that passes a key keeps the message, so the same push can be repeated safely. */
  function push(message, { front, delay, key }) {
    return run(curl.push(message, { front, delay }), async () => {
      try {
        return await retryWithKey((attempt) => client.push(message, { front, delay, key: attempt }), key);
      } catch (error) {
        throw key && LOST_CODES.has(error.code) ? new QueueError("push_offline", error.message) : error;
      }
    });
  }

  // --- taking

  let unanswered = null; // a pop whose answer was lost: {options, key}

  /**
   * Pop; resolves with the list of messages popped. After a pop whose answer was lost, the same pop is asked for again:
   * what it took is not lost.
   * @param {{max?: number, wait?: number}} options
   */
  async function pop(options, signal) {
    const { options: { max }, key } = unanswered ?? { options, key: newKey() };
    const answer = await run(curl.pop(options), async () => {
      try {
        const found = await retryWithKey((attempt) => popWithKey({ ...options, max, key: attempt }, signal), key);
        unanswered = null;
        return found;
      } catch (error) {
        unanswered = LOST_CODES.has(error.code) ? { options, key } : null;
        throw error;
      }
    }, options.wait > 0);
    return answer === undefined ? undefined : keep("pop", listOf(answer).map((message) => ({ message })));
  }

  /** Pop. If the wait was stopped while a message was on its way, fetch that message: the key names it. */
  async function popWithKey(options, signal) {
    try {
      return await client.pop({ ...options, signal });
    } catch (error) {
      if (error.code !== "aborted") throw error;
      return client.pop({ max: options.max, key: options.key });
    }
  }

  /**
   * Reserve; resolves with the list of messages reserved. A reservation whose answer is lost ends by itself.
   * @param {{lease: number, max?: number, wait?: number}} options
   */
  async function reserve(options, signal) {
    const answer = await run(curl.reserve(options), () => client.reserve({ ...options, signal }), options.wait > 0);
    if (answer === undefined) return undefined;
    const { lease } = options;
    return keep("reserve", listOf(answer).map(({ id, message, deliveries }) => {
      return { message, deliveries, reservation: id, lease, until: leaseEnd(lease) };
    }));
  }

  /** Keep messages that were taken on the page. */
  function keep(how, messages) {
    const taken = messages.map((one) => ({ how, key: newKey(), time: Date.now(), ...one }));
    if (taken.length && how !== "reserve") recent.add(taken);
    if (taken.length) store.change(took, taken);
    return taken;
  }

  // --- what is reserved or delayed, by its id; each resolves with the queue's answer, undefined if it failed

  async function ack(reservation) {
    const answer = await run(curl.ack(reservation), () => client.ack(reservation));
    if (!answer) return undefined;
    store.change(ended, reservation);
    notices.say(t("acked"));
    return answer;
  }

  /** Put back, now or in `delay` seconds, or bury. @param {{delay?: number, dead?: boolean, reason?: string}} options */
  async function release(reservation, options = {}) {
    const answer = await run(curl.release(reservation, options), () => client.release(reservation, options));
    if (!answer) return undefined;
    store.change(ended, reservation);
    const dead = deadOf(store.state.name);
    if (answer.dead) {
      const text = options.dead ? t("buried") : t("buried.often");
      notices.say(text, linkTo(dead));
    } else notices.say(options.delay ? t("backed.later", { time: clockIn(options.delay) }) : t("backed", { n: 1 }));
    return answer;
  }

  async function extend(reservation, lease) {
    const answer = await run(curl.extend(reservation, lease), () => client.extend(reservation, lease));
    if (!answer) return undefined;
    store.change(extended, reservation, leaseEnd(lease));
    notices.say(t("extended", { n: lease }));
    return answer;
  }

  /**
   * Take a delayed message off the queue; it can be put back from the page.
   * @param {string} id @param {number} place in the list of what is delayed, where it was seen
   */
  async function removeDelayed(id, place) {
    let message;
    const answer = await run(curl.ack(id), async () => {
      ({ message } = await heldAt("delayed", id, place, "remove.stale"));
      return client.ack(id);
    });
    return answer && keep("remove", [{ message }]);
  }

  /**
   * Read a whole message that is reserved or delayed.
   * @param {"reserved" | "delayed"} kind @param {string} id @param {number} place in the list, where it was seen
   * @returns {Promise<import("../client/types.js").InFlight | undefined>}
   */
  const readHeld = (kind, id, place) => run(curl[kind](), () => heldAt(kind, id, place, "read.stale"));

  /** Read a whole message near its place in a list; where it is gone, that is said with the text `stale`. */
  async function heldAt(kind, id, place, stale) {
    const readAt = async (offset) => (await client[kind]({ offset, limit: 1 })).messages[0];
    const found = await readAt(place);
    if (found?.id === id) return found;
    const start = Math.max(0, place - MAX_MOVED);
    const { messages } = await client[kind]({ offset: start, limit: 2 * MAX_MOVED, preview: 1 });
    const at = messages.findIndex((one) => one.id === id);
    const again = at < 0 ? undefined : await readAt(start + at);
    if (again?.id !== id) throw new QueueError("moved", t(stale));
    return again;
  }

  /** Return the time of day in some seconds, for people. */
  const clockIn = (seconds) => timeOf(Date.now() + seconds * 1000, language);

  const puttingBack = new Set(); // ids

  /**
   * Put one message back in front; a removed one goes back to where it was, as long as the app keeps it. The key and the
   * undo both work once, so that a copy of this tab cannot put it back a second time.
   */
  function putOneBack({ message, key, undo, time }) {
    const isKept = undo && Date.now() < time + UNDO_TTL_MS;
    return isKept ? restore(undo) : push(message, { front: true, key });
  }

  /**
   * Put popped and removed messages back, in the order in which they were taken: the newest first, one by one. A message
   * that is already on its way back is left out.
   * @param {import("../state/queue.js").Taken[]} taken newest first
   */
  async function putBack(taken) {
    const list = taken.filter(({ id }) => !puttingBack.has(id));
    for (const { id } of list) puttingBack.add(id);
    const done = { backed: 0, restored: 0 };
    for (const one of list) {
      const answer = await putOneBack(one);
      if (!answer) break;
      recent.drop(one.key);
      store.change(discarded, one.id);
      done[answer.restored ? "restored" : "backed"] += 1;
    }
    for (const { id } of list) puttingBack.delete(id);
    if (done.backed) notices.say(t("backed", { n: done.backed }));
    if (done.restored) notices.say(t("restored", { n: done.restored }));
  }

  /** Take a message off the page. A reserved one is still in the queue; of others this is the last copy. */
  function discard(one) {
    store.change(discarded, one.id);
    if (one.how === "reserve") return;
    notices.say(t("discarded"), { text: t("undo"), action: () => store.change(recalled, one) });
  }

  // --- single messages

  /**
   * Read a whole waiting message and what is known of it.
   * @param {number} position @param {import("../client/types.js").Preview} [preview] what is shown of it: if others were popped
   *     since then, the message is looked for nearby
   * @returns {Promise<{position: number, message: import("../client/types.js").Message, deliveries: number, reason?: string,
   *           failed?: number, died?: number} | undefined>}
   */
  function read(position, preview) {
    return run(curl.read(position), async () => {
      const found = await readAt(position);
      if (found && (!preview || isSame(found.message, preview))) return found;
      const moved = preview && (await findNear(position, preview));
      const again = moved === undefined ? undefined : await readAt(moved);
      if (again && isSame(again.message, preview)) return again;
      throw new QueueError("moved", t("read.stale"));
    });
  }

  async function readAt(position) {
    const [found] = (await client.all({ offset: position, limit: 1, details: true })).messages;
    return found && { position, ...found };
  }

  /** Return the nearest position of a message with this preview, undefined if there is none nearby. */
  async function findNear(position, preview) {
    const start = Math.max(0, position - MAX_MOVED);
    const { messages } = await client.all({ offset: start, limit: 2 * MAX_MOVED, preview: LOOK_CHARACTERS });
    const places = messages.flatMap((one, i) => (begins(one, preview) ? [start + i] : []));
    return places.toSorted((a, b) => Math.abs(a - position) - Math.abs(b - position))[0];
  }

  /**
   * Remove the message that is shown at a position. If the queue has moved since then, nothing is removed.
   * @param {number} position @param {import("../client/types.js").Preview} [preview] what is shown of it
   */
  async function remove(position, preview) {
    let message;
    const answer = await run("", async () => {
      [message] = (await client.all({ offset: position, limit: 1 })).messages;
      if (message === undefined || (preview && !isSame(message, preview))) throw new QueueError("moved", t("remove.stale"));
      showCommand(curl.remove(position, message));
      return client.remove(position, message, { undo: true });
    });
    if (!answer) return undefined;
    keep("remove", [{ message, undo: answer.undo }]);
    const [one] = store.state.taken;
    const text = headOf(oneLine(message), NAMED_CHARACTERS);
    notices.say(t("removed.what", { text }), { text: t("undo"), action: () => putBack([one]) });
    return answer;
  }

  /**
   * Move one message to another queue. It is looked for nearby if others were popped since it was read at its position.
   * @param {string} to @param {number} position @param {import("../client/types.js").Message} message
   */
  async function moveOne(to, position, message) {
    const answer = await run(curl.moveOne(to, position, message), async () => {
      try {
        return await client.move(to, { position, message });
      } catch (error) {
        if (error.code !== "stale") throw error;
      }
      const moved = await findNear(position, { preview: message, bytes: bytesOf(message).length });
      if (moved === undefined) throw new QueueError("moved", t("read.stale"));
      return client.move(to, { position: moved, message });
    });
    if (answer) sayMoved(answer.moved, to);
    return answer;
  }

  /**
   * Push a copy of a message to this queue or another one.
   * @param {string} to @param {import("../client/types.js").Message} message @param {string} key makes it safe to repeat
   */
  async function pushTo(to, message, key) {
    const answer = await run(curl.of(to).push(message), () => {
      return retryWithKey((attempt) => client.of(to).push(message, { key: attempt }), key);
    });
    if (answer) notices.say(t("pushed.to", { name: to }), linkTo(to));
    return answer;
  }

  /** Return the link that a notice has to the page of another queue; none to this one's. */
  function linkTo(name) {
    return name === store.state.name ? undefined : { href: pageUrl(name), text: t("dead.open", { name }) };
  }

  // --- all messages

  const clear = () => run(curl.clear(), () => client.clear());

  /** Undo a clear or a removal; `onStale` is called if it can no longer be undone. */
  function restore(undo, onStale = () => {}) {
    return run(curl.restore(undo), async () => {
      try {
        return await client.restore(undo);
      } catch (error) {
        if (error.code === "stale") onStale();
        throw error;
      }
    });
  }

  /** Move the oldest messages. @param {string} to @param {{max?: number, contains?: string}} options */
  async function move(to, options = {}) {
    if (to === store.state.name) return notices.fail({ code: "same_queue" });
    const answer = await run(curl.move(to, options), () => client.move(to, options));
    if (!answer) return undefined;
    const undo = (await isAll(to, answer.moved)) ? { label: t("move.back"), action: () => moveBack(to, answer.moved) } : {};
    sayMoved(answer.moved, to, undo);
    return answer;
  }

  const sayMoved = (number, to, undo = {}) => notices.say(t("moved", { n: number, name: to }), { ...linkTo(to), ...undo });

  /** Whether a queue holds so many messages and no others. A move into one that held more cannot be undone: they mix. */
  async function isAll(name, number) {
    try {
      return number > 0 && (await client.of(name).count()).count === number;
    } catch {
      return false; // then it is not offered
    }
  }

  /** Undo a move into a queue that was empty, unless it has changed since. */
  async function moveBack(from, number) {
    const { name } = store.state;
    const answer = await run("", async () => {
      if (!(await isAll(from, number))) throw new QueueError("moved", t("move.stale", { name: from }));
      return client.of(from).move(name, { max: number });
    });
    if (answer) sayMoved(answer.moved, name);
  }

  async function pause() {
    if (await run(curl.pause(), () => client.pause())) store.change(paused, true);
  }

  async function resume() {
    if (await run(curl.resume(), () => client.resume())) store.change(paused, false);
  }

  const taking = { push, pop, reserve, ack, release, extend, putBack, discard };
  const single = { read, readHeld, remove, removeDelayed, moveOne, pushTo };
  return { ...taking, ...single, clear, restore, move, pause, resume };
}

/** Return a new Idempotency-Key. */
export function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Do something exactly once even if an answer is lost: try again with the same Idempotency-Key. */
export async function retryWithKey(work, key = newKey(), delay = RETRY_DELAY_MS) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await work(key);
    } catch (error) {
      if (attempt === MAX_ATTEMPTS || !LOST_CODES.has(error.code)) throw error;
      await new Promise((done) => setTimeout(done, delay));
    }
  }
}

/** Whether a message can be the one with this preview. Compared byte by byte: only the end may be invalid UTF-8. */
function isSame(message, { preview, bytes }) {
  const [whole, head] = [bytesOf(message), bytesOf(preview)];
  return whole.length === bytes && head.every((byte, i) => byte === whole[i]);
}

/** Whether a message that is shown by one preview can be the one with another, longer or shorter one. */
function begins(one, other) {
  const [a, b] = [bytesOf(one.preview), bytesOf(other.preview)];
  const length = Math.min(a.length, b.length);
  return one.bytes === other.bytes && a.subarray(0, length).every((byte, i) => byte === b[i]);
}

/** Return what pop and reserve answer as a list: with `max` it is one, without it is a message or null. */
function listOf(answer) {
  return Array.isArray(answer) ? answer : [answer].filter((one) => one !== null);
}

/** Return when a lease ends by this clock: it may differ from the server's, but a lease is as long on both. */
function leaseEnd(lease) {
  return Date.now() + lease * 1000;
}
