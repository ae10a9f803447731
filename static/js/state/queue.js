import { addSample, addSteps, fillSamples } from "./chart.js";

/**
 * The page's state, without any DOM. The functions below `createStore` take a state and return a new one.
 *
 * @typedef {{id: number, message: import("../client/types.js").Message, how: "pop" | "remove" | "reserve", key?: string,
 *            undo?: string, time?: number, reservation?: string, lease?: number, until?: number, deliveries?: number}} Taken
 *     a message taken from the queue; key: makes it safe to put it back again; undo: of a removal; lease: seconds;
 *     time, until: when it was taken, and until when it is reserved, milliseconds
 */

/** Hold the state. Subscribers are called once after any number of changes made in one go. */
export function createStore(state) {
  const subscribers = [];
  let scheduled = false;
  return {
    get state() {
      return state;
    },
    /** Replace the state by what `transition` makes of it. */
    change(transition, ...args) {
      state = transition(state, ...args);
      if (scheduled) return;
      scheduled = true;
      queueMicrotask(() => {
        scheduled = false;
        for (const update of subscribers) update(state);
      });
    },
    subscribe(update) {
      subscribers.push(update);
    },
  };
}

/** @param {string} name @param {import("./chart.js").Sample[]} samples those saved before a reload */
export function initial(name, samples = []) {
  return {
    name,
    connection: "connecting",
    error: null,
    known: false,
    count: 0,
    reserved: 0,
    delayed: 0,
    dead: 0,
    waiters: 0,
    paused: false,
    next: [],
    version: 0, // increases with every state received
    samples,
    steps: [], // messages in and out
    taken: [],
  };
}

/** The queue's state was received. `offset`: milliseconds that the app's clock is ahead of this one. */
export function received(state, event, now, offset = 0) {
  const { count, reserved = 0, delayed = 0, dead = 0, waiters = 0, paused = false, next = [], history } = event;
  const filled = history ? fillSamples(state.samples, history, offset) : state.samples;
  const steps = history ? addSteps(state.steps, history, offset) : state.steps;
  const samples = addSample(filled, count, now);
  const version = state.version + 1;
  return { ...state, known: true, count, reserved, delayed, dead, waiters, paused, next, samples, steps, version };
}

/** The queue was paused or resumed here: shown at once, before the stream says so. */
export function paused(state, isPaused) {
  return { ...state, paused: isPaused };
}

/** The connection changed; a fault carries the error that caused it. Unless it is live, the depth is unknown from now on. */
export function connected(state, connection, error, now) {
  const isLive = connection === "live";
  const samples = isLive ? state.samples : addSample(state.samples, null, now);
  return { ...state, connection, error: isLive ? null : (error ?? null), samples };
}

/** Return the label of the connection: a fault means that Redis is away, that Redis fails, or that the app does. */
export function labelOf({ connection, error }) {
  if (connection !== "fault" || error?.code === "redis_unavailable") return connection;
  return /^redis_|^wrong_type$/.test(error?.code) ? "trouble" : "away";
}

// --- messages taken from the queue

let lastId = 0;

/** Add messages that were taken, the newest first. */
export function took(state, messages) {
  const taken = messages.map((one) => ({ ...one, id: (lastId += 1) })).toReversed();
  return { ...state, taken: [...taken, ...state.taken] };
}

/** Put a discarded message back in its place among those taken. */
export function recalled(state, one) {
  return { ...state, taken: [...state.taken, one].toSorted((a, b) => b.id - a.id) };
}

export function discarded(state, id) {
  return { ...state, taken: state.taken.filter((one) => one.id !== id) };
}

/** A reservation ended, here or in the list of all that is reserved. */
export function ended(state, reservation) {
  return { ...state, taken: state.taken.filter((one) => one.reservation !== reservation) };
}

/** A reservation lasts until another time (milliseconds). */
export function extended(state, reservation, until) {
  return { ...state, taken: state.taken.map((one) => (one.reservation === reservation ? { ...one, until } : one)) };
}
