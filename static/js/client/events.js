/** Server-sent events, without EventSource: that can neither send a token nor report why a connection failed. */
import { parseAnswer } from "./answers.js";
import { QueueError } from "./errors.js";

const SILENCE_TIMEOUT_MS = 40_000; // a stream without a byte for this long, comments included, is dead
const RETRY_DELAYS_MS = [250, 500, 1000, 2000, 4000, 8000];

/**
 * Pass the events of a stream to their handlers, and reconnect whenever it ends, until `stopped` is aborted.
 * @param {(signal: AbortSignal) => Promise<Response>} open
 * @param {Record<string, (data: any) => void>} handlers by the name of the event
 * @param {(now: import("./types.js").Connection, error?: QueueError) => void} connection called on every change
 * @param {AbortSignal} stopped
 */
export async function followEvents(open, handlers, connection, stopped) {
  let failures = 0;
  /** @type {typeof connection} */
  const report = (...now) => {
    if (!stopped.aborted) callHandler(() => connection(...now));
  };
  report("connecting");
  while (!stopped.aborted) {
    try {
      for await (const { event, data } of eventsOf(open, stopped)) {
        if (stopped.aborted) return;
        failures = 0;
        if (event in handlers) {
          report("live");
          const state = JSON.parse(data);
          callHandler(() => handlers[event](state));
        } else if (event === "fault") {
          const answer = JSON.parse(data);
          report("fault", new QueueError(answer.error, answer.message, 503, answer));
        }
      }
      report("away");
    } catch (/** @type {any} */ error) {
      if (error.status === 401 || error.status === 400) return void report("refused", error);
      report(error.status ? "fault" : "away", error);
    }
    await sleep(RETRY_DELAYS_MS[Math.min(failures, RETRY_DELAYS_MS.length - 1)], stopped);
    failures += 1;
  }
}

/** Call a handler. An error of its own is reported as uncaught, and the stream goes on. @param {() => void} handler */
function callHandler(handler) {
  try {
    handler();
  } catch (error) {
    if (globalThis.reportError) globalThis.reportError(error);
    else
      queueMicrotask(() => {
        throw error;
      });
  }
}

/**
 * Yield the events of one connection until it ends, is stopped, or times out.
 * @param {(signal: AbortSignal) => Promise<Response>} open @param {AbortSignal} stopped
 */
async function* eventsOf(open, stopped) {
  const timeout = new AbortController();
  const end = () => timeout.abort();
  let timer = setTimeout(end, SILENCE_TIMEOUT_MS);
  globalThis.addEventListener?.("offline", end); // the connection is gone, but fetch would not notice for a long time
  try {
    const response = await open(AbortSignal.any([stopped, timeout.signal]));
    if (!response.ok || !response.body) return void (await parseAnswer(response));
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read().catch(() => ({ value: "", done: true }));
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(end, SILENCE_TIMEOUT_MS);
      const found = parseEvents(rest + value);
      rest = found.rest;
      yield* found.events;
    }
  } finally {
    clearTimeout(timer);
    globalThis.removeEventListener?.("offline", end);
    end();
  }
}

/**
 * Return the complete events in a piece of an event stream, and the incomplete rest.
 * @param {string} text @returns {{events: Array<{event: string, data: string}>, rest: string}}
 */
export function parseEvents(text) {
  const blocks = text.replaceAll("\r\n", "\n").split("\n\n");
  const rest = blocks.pop() ?? "";
  const events = [];
  for (const block of blocks) {
    let event = "message";
    const data = [];
    for (const line of block.split("\n")) {
      const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line) ?? [];
      if (field === "event") event = value;
      if (field === "data") data.push(value);
    }
    if (data.length) events.push({ event, data: data.join("\n") });
  }
  return { events, rest };
}

/**
 * Resolve after a time, or earlier once it is aborted or the browser is online again.
 * @param {number} milliseconds @param {AbortSignal} signal
 */
function sleep(milliseconds, signal) {
  return new Promise((/** @type {(value?: undefined) => void} */ done) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      globalThis.removeEventListener?.("online", end);
      done();
    };
    const timer = setTimeout(end, milliseconds);
    signal.addEventListener("abort", end);
    globalThis.addEventListener?.("online", end);
  });
}
