/**
 * What the page knows, without any DOM: every function takes a state and returns a new one.
 *
 * @typedef {{time: number, count: number}} Sample time: milliseconds
 * @typedef {{id: number, message: import("./client.js").Message, how: "pop" | "remove" | "reserve",
 *            reservation?: string, until?: number, deliveries?: number}} Taken
 */

const MINUTE = 60_000;
export const WINDOW = 5 * MINUTE; // milliseconds that the chart shows at most
const SPANS = [MINUTE, 2 * MINUTE, WINDOW]; // it begins with the first: what one does shows at once
const SAMPLES = 600; // most samples kept

/** @param {string} name @param {Sample[]} samples what the chart knew before a reload */
export function initial(name, samples = []) {
  return {
    name,
    connection: "connecting",
    error: null,
    known: false,
    count: 0,
    reserved: 0,
    dead: 0,
    waiters: 0,
    next: [],
    version: 0, // grows with every state that came in
    samples,
    taken: [],
  };
}

/** The queue's state came in. */
export function received(state, { count, reserved = 0, dead = 0, waiters = 0, next = [] }, now) {
  const samples = sampled(state.samples, count, now);
  const version = state.version + 1;
  return { ...state, known: true, count, reserved, dead, waiters, next, samples, version };
}

/** The connection changed; a fault comes with the error that tells why. */
export function connected(state, connection, error = null) {
  return { ...state, connection, error: connection === "live" ? null : error };
}

/** What to call the state of the connection: a fault can be Redis's absence, its refusal, or the app's. */
export function labelOf({ connection, error }) {
  if (connection !== "fault" || error?.code === "redis_away") return connection;
  return /^redis_|^wrong_type$/.test(error?.code) ? "trouble" : "away";
}

/** Add a sample; one that adds nothing to the line is left out, and so are those that left the window, but for the last. */
export function sampled(samples, count, now) {
  const last = samples.at(-1);
  if (last && last.count === count) return samples;
  const kept = samples.filter((sample, i) => samples[i + 1] === undefined || samples[i + 1].time > now - WINDOW);
  kept.push({ time: now, count });
  if (kept.length <= SAMPLES) return kept;
  // Too many: of every two neighbours in the older half keep the higher, so that peaks stay.
  const half = kept.length >> 1;
  const older = [];
  for (let i = 0; i < half; i += 2) {
    const [a, b] = [kept[i], kept[i + 1]];
    older.push(i + 1 < half && b.count > a.count ? b : a);
  }
  return [...older, ...kept.slice(half)];
}

/**
 * The chart's lines in a box of `width` x `height`: a step line of the depth, and the area beneath it.
 * @returns {{line: string, area: string, top: number, least: number, most: number, minutes: number}}
 *     top: the depth at the upper edge; minutes: what the width stands for
 */
export function chart(samples, now, width, height) {
  if (!samples.length) return { line: "", area: "", top: 1, least: 0, most: 0, minutes: 1 };
  const span = SPANS.find((one) => samples[0].time >= now - one) ?? WINDOW;
  const start = now - span;
  const shown = samples.filter((sample, i) => samples[i + 1] === undefined || samples[i + 1].time > start);
  const counts = shown.map((sample) => sample.count);
  const [least, most] = [Math.min(...counts), Math.max(...counts)];
  const top = niceTop(most);
  const x = (time) => round(Math.max(0, (time - start) / span) * width);
  const y = (count) => round(height - (count / top) * height);
  let line = "";
  shown.forEach((sample, i) => {
    line += i === 0 ? `M${x(sample.time)} ${y(sample.count)}` : `H${x(sample.time)}V${y(sample.count)}`;
  });
  line += `H${round(width)}`;
  const area = `${line}V${round(height)}H${x(shown[0].time)}Z`;
  return { line, area, top, least, most, minutes: span / MINUTE };
}

function round(number) {
  return Math.round(number * 10) / 10;
}

/** The next round number: 1, 2, 5, 10, 20, 50 and so on. */
export function niceTop(most) {
  if (most <= 1) return 1;
  const power = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 5, 10].map((factor) => factor * power).find((top) => top >= most);
}

// --- messages taken from the queue

let ids = 0;

/** Keep messages that were taken, the newest on top. */
export function took(state, found) {
  const taken = found.map((one) => ({ ...one, id: (ids += 1) })).toReversed();
  return { ...state, taken: [...taken, ...state.taken] };
}

/** Show a message again that was taken off the list. */
export function recalled(state, one) {
  return { ...state, taken: [...state.taken, one].toSorted((a, b) => b.id - a.id) };
}

export function forgot(state, id) {
  return { ...state, taken: state.taken.filter((one) => one.id !== id) };
}

export function changed(state, id, change) {
  return { ...state, taken: state.taken.map((one) => (one.id === id ? { ...one, ...change } : one)) };
}

// --- the window of the list: a browser's elements have a greatest height, so a very long list is scrolled in proportion

const TALLEST = 12_000_000; // pixels

/**
 * Which rows a list shows, and where.
 * @param {{count: number, row: number, view: number, scroll: number}} list row, view, scroll: pixels
 * @returns {{height: number, first: number, last: number, top: number}}
 *     height: of all rows; first to last (exclusive): the rows; top: pixels where the first of them is drawn
 */
export function windowOf({ count, row, view, scroll }) {
  const full = count * row;
  const height = Math.min(full, TALLEST);
  const most = Math.max(0, height - view);
  const at = Math.min(Math.max(0, scroll), most);
  const exact = most > 0 ? (at / most) * (full - view) : 0; // where the view would begin in a list of full height
  const first = Math.max(0, Math.floor(exact / row) - 4);
  const last = Math.min(count, Math.ceil((exact + view) / row) + 4);
  return { height, first, last, top: at - exact + first * row };
}

/** Where to scroll so that a row is seen whole; the present scroll if it is. */
export function scrollTo(index, { count, row, view, scroll }) {
  const full = count * row;
  const height = Math.min(full, TALLEST);
  if (full <= view) return 0;
  const [most, range] = [height - view, full - view];
  const exact = (scroll / most) * range;
  let wanted = exact;
  if (index * row < exact) wanted = index * row;
  if ((index + 1) * row > exact + view) wanted = (index + 1) * row - view;
  return wanted === exact ? scroll : (wanted / range) * most;
}

/** Whether a name can be a queue's. A URL cannot hold "." and "..". */
export function isName(text) {
  return /^[A-Za-z0-9._:-]{1,128}(\.dead)?$/.test(text) && text !== "." && text !== "..";
}

/** The queue whose dead letters this one holds; null if it holds none. */
export function aliveOf(name) {
  return /^(.+)\.dead$/.exec(name)?.[1] ?? null;
}

/** The lines of a text that are messages. */
export function linesOf(text) {
  return text.split("\n").map((line) => line.replace(/\r$/, "")).filter((line) => line !== "");
}
