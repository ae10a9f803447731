/**
 * Follow a queue with one stream for all tabs that show it: a browser opens six connections to a host, and a stream
 * holds one. The tab that holds the queue's lock has the stream and tells the others; when it stops, the next one has it.
 */
import { joinHistories } from "./chart.js";
import { QueueError } from "./client.js";

/**
 * As `client.events`. Browsers offer locks only on https and localhost; elsewhere each tab has a stream of its own.
 * @param {import("./client.js").QueueClient} client
 * @param {{queue: (state: object) => void, connection: (now: string, error?: QueueError) => void}} handlers
 * @param {{next?: number, history?: boolean}} options
 * @returns {() => void} call it to stop
 */
export function follow(client, handlers, options) {
  const { locks } = navigator;
  if (!locks) return client.events(handlers, options);
  const name = client.url("events").href;
  const channel = new BroadcastChannel(name);
  const stopped = new AbortController();
  const last = new Map(); // what a tab that comes is told, by kind, while this one has the stream

  function tell(kind, ...values) {
    last.set(kind, kind === "queue" ? [whole(...values)] : values);
    handlers[kind](...values.map(decode));
    channel.postMessage({ kind, values });
  }

  /** A state with all the history that was told, not only the newest of it. */
  function whole(state) {
    return { ...state, history: joinHistories(last.get("queue")?.[0].history, state.history) };
  }

  channel.addEventListener("message", ({ data: { kind, values } }) => {
    if (kind in handlers) handlers[kind](...values.map(decode));
    else for (const [one, told] of last) channel.postMessage({ kind: one, values: told }); // a tab has come
  });
  channel.postMessage({ kind: "hello" });
  handlers.connection("connecting");

  /** Have the stream until this tab stops following. */
  const hold = () =>
    new Promise((done) => {
      const told = { queue: (state) => tell("queue", state), connection: (now, error) => tell("connection", now, encode(error)) };
      const stop = client.events(told, options);
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

/** An error as it can be sent to another tab. */
function encode(error) {
  return error && { isError: true, code: error.code, message: error.message, status: error.status, answer: error.answer };
}

function decode(value) {
  return value?.isError ? new QueueError(value.code, value.message, value.status, value.answer) : value;
}
