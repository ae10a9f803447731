/** The state of a queue's page, without any DOM. Each function takes a state and returns a new one. */
import { NO_COUNTS, countsOf } from "../client/types.js";
import { addSample, addSteps, fillSamples, upTo } from "./chart.js";

/**
 * Return the state of a page that has just been opened.
 * @param {string} name @param {import("./chart.js").Sample[]} samples saved before a reload
 */
export function initialQueue(name, samples = []) {
  return {
    name,
    connection: "connecting",
    error: null,
    known: false,
    ...NO_COUNTS,
    next: [],
    version: 0, // increases with every state received
    samples,
    steps: [], // messages in and out
    inHand: [],
  };
}

/** A state of the queue was received. `offset`: how far the server's clock is ahead of this one, milliseconds. */
export function receiveState(state, event, now, offset = 0) {
  const { history, next = [] } = event;
  const counts = countsOf(event);
  const past = upTo(now, state.samples);
  const filled = history ? fillSamples(past, history, offset) : past;
  const steps = history ? addSteps(state.steps, history, offset) : state.steps;
  const samples = addSample(filled, counts.count, now);
  return { ...state, ...counts, known: true, next, samples, steps, version: state.version + 1 };
}

/** This page has paused or resumed the queue: show it at once, before the stream reports it. */
export const setPaused = (state, paused) => ({ ...state, paused });

/** The connection changed; a fault has the error that caused it. While it is not live, the depth is unknown. */
export function setConnection(state, connection, error, now) {
  const isLive = connection === "live";
  const samples = isLive ? state.samples : addSample(state.samples, null, now);
  return { ...state, connection, error: isLive ? null : (error ?? null), samples };
}

/**
 * Return the label of the connection: for a fault, whether Redis is unavailable, Redis fails, or the server fails.
 */
export function labelOf({ connection, error }) {
  if (connection !== "fault" || error?.code === "redis_unavailable") return connection;
  return /^redis_|^wrong_type$/.test(error?.code) ? "trouble" : "away";
}
