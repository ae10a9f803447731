/**
 * Follow a queue with one stream for all tabs that show it: a browser opens six connections to a host, and a stream
 * holds one. The tab that holds the queue's lock has the stream and tells the others; when it stops, the next one has it.
 */
import { QueueError } from "./client.js";

/**
 * As `client.events`. Browsers offer locks only on https and localhost; elsewhere each tab has a stream of its own.
 * @param {import("./client.js").QueueClient} client
 * @param {{queue: (state: object) => void, connection: (now: string, error?: QueueError) => void}} handlers
 * @returns {() => void} call it to stop
 */
export function follow(client, handlers) {
  const { locks } = navigator;
  if (!locks) return client.events(handlers);
  const name = client.url("events").href;
  const channel = new BroadcastChannel(name);
  const stopped = new AbortController();
  const last = new Map(); // what this tab told the others last, by kind, while it has the stream

  function tell(kind, ...values) {
    last.set(kind, values);
    handlers[kind](...values.map(decode));
    channel.postMessage({ kind, values });
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
      const stop = client.events({
        queue: (state) => tell("queue", state),
        connection: (now, error) => tell("connection", now, encode(error)),
      });
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
