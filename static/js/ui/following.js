/**
 * Follow a queue, or all of them, with one stream for all tabs that do: a browser opens six connections to a host, and a
 * stream holds one. The tab that holds the stream's lock has it and tells the others; when it stops, the next one has it.
 */
import { joinHistories } from "../state/chart.js";
import { QueueError } from "../client.js";
import { merged, onThisClock } from "../state/queueList.js";

const HIDDEN_TIMEOUT_MS = 5000; // then a hidden tab stops following: browsers limit the connections to a host

/**
 * Follow while the tab is shown; one that is opened in the background begins then.
 * @param {() => () => void} start begins to follow, and returns what ends it
 * @param {() => void} idle called when the tab does not follow any more
 */
export function followWhileShown(start, idle) {
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

/** As `client.events`. @param {import("../client.js").QueueClient} client */
export function follow(client, handlers, options) {
  const whole = (before, state) => ({ ...state, history: joinHistories(before?.history, state.history) });
  const open = (given) => client.events(given, options);
  return share(client.url("events").href, open, handlers, { queue: { kind: "queue", whole } });
}

/** As `client.allEvents`. @param {import("../client.js").QueueClient} client */
export function followAll(client, handlers) {
  const { href } = client.allEventsUrl;
  const queues = (given) => (list) => given.queues(onThisClock(list, client.clockOffset));
  const open = (given) => client.allEvents({ ...given, queues: queues(given) });
  return share(href, open, handlers, { changed: { kind: "queues", whole: merged } });
}

/**
 * Browsers offer locks only on https and localhost; elsewhere each tab has a stream of its own.
 * @param {string} name @param {(handlers: object) => () => void} open
 * @param {Record<string, (...values) => void>} handlers
 * @param {Record<string, {kind: string, whole: (before: object, value: object) => object}>} sums
 *     the kinds of events that are a part: a tab that comes later is told the whole, as an event of another kind
 * @returns {() => void} call it to stop
 */
function share(name, open, handlers, sums) {
  const { locks } = navigator;
  if (!locks) return open(handlers);
  const channel = new BroadcastChannel(name);
  const stopped = new AbortController();
  const last = new Map(); // what a tab that comes is told, by kind, while this one has the stream

  function tell(kind, ...values) {
    const sum = sums[kind];
    if (sum) last.set(sum.kind, [sum.whole(last.get(sum.kind)?.[0], values[0])]);
    else last.set(kind, values);
    handlers[kind](...values.map(decode));
    channel.postMessage({ kind, values });
  }

  const teller = (kind) => (...values) => tell(kind, ...values.map(encode));

  channel.addEventListener("message", ({ data: { kind, values } }) => {
    if (kind in handlers) handlers[kind](...values.map(decode));
    else for (const [one, told] of last) channel.postMessage({ kind: one, values: told }); // a tab has come
  });
  channel.postMessage({ kind: "hello" });
  handlers.connection("connecting");

  /** Have the stream until this tab stops following. */
  const hold = () =>
    new Promise((done) => {
      const stop = open(Object.fromEntries(Object.keys(handlers).map((kind) => [kind, teller(kind)])));
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

/** A value as it can be sent to another tab. */
function encode(value) {
  if (!(value instanceof QueueError)) return value;
  return { isError: true, code: value.code, message: value.message, status: value.status, answer: value.answer };
}

function decode(value) {
  return value?.isError ? new QueueError(value.code, value.message, value.status, value.answer) : value;
}
