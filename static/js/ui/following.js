/**
 * Follow a queue, or all queues, with one stream shared by all tabs: a browser opens only six connections to a host,
 * and a stream takes one of them. The tab that holds the lock has the stream and sends its events to the others; when
 * it stops, the next tab gets the lock.
 */
import { QueueError } from "../client.js";
import { joinHistories } from "../state/chart.js";
import { mergeChange, toLocalClock } from "../state/queueList.js";

const HIDDEN_TIMEOUT_MS = 5000; // after this, a hidden tab stops following: browsers limit the connections to a host

/**
 * Follow while the tab is visible; a tab that is opened in the background starts once it is.
 * @param {() => () => void} start starts following, and returns a function that stops it
 * @param {() => void} idle called when the tab has stopped
 */
export function followWhileVisible(start, idle) {
  let stop = null;
  let hiddenTimer = 0;
  const follow = () => {
    stop ??= start();
  };
  const unfollow = () => {
    stop?.();
    stop = null;
    idle();
  };
  document.addEventListener("visibilitychange", () => {
    clearTimeout(hiddenTimer);
    if (document.hidden) hiddenTimer = setTimeout(unfollow, HIDDEN_TIMEOUT_MS);
    else follow();
  });
  addEventListener("pagehide", unfollow);
  addEventListener("pageshow", () => document.hidden || follow());
  if (document.hidden) unfollow();
  else follow();
}

/** Like `client.events`. @param {import("../client.js").QueueClient} client */
export function follow(client, handlers, options) {
  const add = (before, state) => ({ ...state, history: joinHistories(before?.history, state.history) });
  const open = (shared) => client.events(shared, options);
  return share(client.url("events").href, open, handlers, { queue: { kind: "queue", add } });
}

/** Like `client.allEvents`. @param {import("../client.js").QueueClient} client */
export function followAll(client, handlers) {
  const queues = (shared) => (list) => shared.queues(toLocalClock(list, client.clockOffset));
  const open = (shared) => client.allEvents({ ...shared, queues: queues(shared) });
  return share(client.allEventsUrl.href, open, handlers, { changed: { kind: "queues", add: mergeChange } });
}

/**
 * Share a stream among tabs. Browsers offer locks only on https and localhost; elsewhere each tab has its own stream.
 * @param {string} name of the lock and the channel @param {(handlers: object) => () => void} open
 * @param {Record<string, (...values) => void>} handlers by kind of event
 * @param {Record<string, {kind: string, add: (before: object, value: object) => object}>} partial
 *     the kinds of events that report only a part of the state: for a tab that joins later, `add` keeps the whole,
 *     which is sent as an event of another kind
 * @returns {() => void} call it to stop
 */
function share(name, open, handlers, partial) {
  const { locks } = navigator;
  if (!locks) return open(handlers);
  const channel = new BroadcastChannel(name);
  const stopped = new AbortController();
  const last = new Map(); // kind -> its values, for tabs that join while this one has the stream

  /** Handle an event of the stream here and in all other tabs. */
  function publish(kind, ...values) {
    const part = partial[kind];
    if (part) last.set(part.kind, [part.add(last.get(part.kind)?.[0], values[0])]);
    else last.set(kind, values);
    handlers[kind](...values.map(decode));
    channel.postMessage({ kind, values });
  }
  const publisher = (kind) => (...values) => publish(kind, ...values.map(encode));

  channel.addEventListener("message", ({ data: { kind, values } }) => {
    if (kind in handlers) handlers[kind](...values.map(decode));
    else for (const [one, known] of last) channel.postMessage({ kind: one, values: known }); // a tab has joined
  });
  channel.postMessage({ kind: "hello" });
  handlers.connection("connecting");

  /** Have the stream until this tab stops following. */
  const hold = () =>
    new Promise((done) => {
      const stop = open(Object.fromEntries(Object.keys(handlers).map((kind) => [kind, publisher(kind)])));
      stopped.signal.addEventListener("abort", () => done(stop()));
    });
  locks.request(name, { signal: stopped.signal }, hold).catch((error) => {
    if (error.name !== "AbortError") throw error;
  });
  return () => {
    stopped.abort();
    channel.close();
  };
}

/** Return a value that can be sent to another tab. */
function encode(value) {
  if (!(value instanceof QueueError)) return value;
  return { isError: true, code: value.code, message: value.message, status: value.status, answer: value.answer };
}

function decode(value) {
  return value?.isError ? new QueueError(value.code, value.message, value.status, value.answer) : value;
}
