import { upTo, xOf } from "./chart.js";

/**
 * All queues as the page knows them, without any DOM: their counts, what it has seen of them, and which are in trouble.
 *
 * @typedef {import("../client/types.js").Counts & {name: string, samples: import("./chart.js").Sample[],
 *           growingSince: number | null, grewAt: number, emptySince: number | null}} Queue
 *     growingSince: when it began to grow while nobody consumed; grewAt: when it grew last; emptySince: when it was last
 *     seen to hold something; times in milliseconds
 */

const SAMPLE_STEP_MS = 10_000;
const MINUTE_MS = 60_000;
const SPARK_MINUTES = [1, 2, 5, 10]; // the lines start short, so that a first change is visible
const MAX_SPARK_MS = 10 * MINUTE_MS;
const MIN_GROWING_MS = 10_000; // a message that waits for less is not worth a word
const MAX_STILL_MS = 120_000; // a queue that has not grown for longer does not grow
const EMPTY_KEPT_MS = 60_000; // a queue that is empty is still shown for so long

const NOTHING = { count: 0, reserved: 0, delayed: 0, dead: 0, waiters: 0, paused: false };

/** Return a list with a change made in it. @param {import("../client/types.js").QueueList} list */
export function merged(list, { queues, removed, complete, unnamed }) {
  const others = new Set([...removed, ...queues.map(({ name }) => name)]);
  return { queues: [...list.queues.filter(({ name }) => !others.has(name)), ...queues], complete, unnamed };
}

/** Return a list whose histories tell time as this computer does. @param {number} offset of the app's clock, milliseconds */
export function onThisClock(list, offset) {
  const moved = ({ history, ...queue }) => ({ ...queue, history: history && { ...history, at: history.at - offset / 1000 } });
  return { ...list, queues: list.queues.map(moved) };
}

/** The state before anything is known. */
export const initialOverview = () => ({
  connection: "connecting",
  error: null,
  known: false,
  isStale: false, // whether changes may have been missed since the last list
  complete: true,
  unnamed: 0,
  since: null, // when the first list was received
  queues: new Map(), // name -> Queue
});

/** The connection changed; a fault carries the error that caused it. */
export function connected(state, connection, error = null) {
  const isLive = connection === "live";
  return { ...state, connection, error: isLive ? null : error, isStale: state.isStale || !isLive };
}

/** The whole list was received. After an interruption what was seen before is forgotten: what was between is not known. */
export function listed(state, { queues, complete, unnamed }, now) {
  const before = new Map(state.isStale ? [] : state.queues);
  const held = new Set(queues.map(({ name }) => name));
  const removed = [...before.keys()].filter((name) => !held.has(name));
  for (const queue of queues) if (queue.history && !before.has(queue.name)) before.set(queue.name, remembered(queue));
  const starts = [...before.values()].map(({ samples: [first] }) => first?.time ?? now);
  const since = (state.isStale ? null : state.since) ?? starts.reduce((a, b) => Math.min(a, b), now);
  return { ...changed({ ...state, queues: before }, { queues, removed, complete, unnamed }, now), known: true, isStale: false, since };
}

/** Return a queue as its history tells it. */
function remembered({ history: { at, step, count, out }, ...queue }) {
  let known;
  count.forEach((number, i) => {
    if (number === null) return;
    const counts = { ...queue, count: number, reserved: 0, waiters: 0 };
    known = seen(known, out[i] > 0 ? { ...counts, waiters: 1 } : counts, null, (at + (i + 1) * step) * 1000);
  });
  return known;
}

/** A change of the list was received. */
export function changed(state, { queues, removed, complete, unnamed }, now) {
  const all = new Map(state.queues);
  for (const counts of queues) all.set(counts.name, seen(all.get(counts.name), counts, null, now));
  for (const name of removed) {
    const queue = all.get(name);
    if (queue) all.set(name, seen(queue, NOTHING, queue.emptySince ?? now, now));
  }
  return { ...state, queues: all, complete, unnamed };
}

/** Time has passed: forget the queues that have been empty for long. */
export function aged(state, now) {
  // A clock that was set back must not keep an empty queue for years.
  const isOver = ({ emptySince }) => emptySince !== null && Math.abs(now - emptySince) > EMPTY_KEPT_MS;
  const all = [...state.queues].filter(([, queue]) => !isOver(queue));
  return all.length === state.queues.size ? state : { ...state, queues: new Map(all) };
}

/** Return what is known of a queue, after its counts were received. @param {Queue | undefined} before @returns {Queue} */
function seen(before, { history: _history, ...counts }, emptySince, now) {
  const samples = sampled(before?.samples ?? [], counts.count, now);
  const grows = before !== undefined && counts.count > before.count;
  const isConsumed = counts.waiters > 0 || counts.reserved > 0 || counts.count < before?.count;
  const growingSince = isConsumed ? null : (before?.growingSince ?? (grows ? now : null));
  return { ...before, ...counts, samples, growingSince, grewAt: grows ? now : (before?.grewAt ?? 0), emptySince };
}

/** Add a sample: one for each step, the last that was seen in it. */
function sampled(before, count, now) {
  const samples = upTo(now, before);
  const last = samples.at(-1);
  if (last?.count === count) return samples;
  const isSameStep = last && samples.length > 1 && Math.floor(last.time / SAMPLE_STEP_MS) === Math.floor(now / SAMPLE_STEP_MS);
  const kept = isSameStep ? samples.slice(0, -1) : samples;
  // The line starts at the depth of the last sample that has left the window.
  const first = kept.findLastIndex(({ time }) => time <= now - MAX_SPARK_MS);
  return [...kept.slice(Math.max(0, first)), { time: isSameStep ? last.time : now, count }];
}

/** Return what is wrong with a queue: it has dead letters; it grows and nobody consumes. @param {Queue} queue */
export function troublesOf(queue, now) {
  const { dead, paused, growingSince, grewAt } = queue;
  const grows = growingSince !== null && now - growingSince >= MIN_GROWING_MS && now - grewAt <= MAX_STILL_MS;
  return [dead > 0 && "dead", grows && !paused && "growing"].filter(Boolean);
}

/** What queues can be sorted by; the name decides between equal ones. */
export const SORTS = ["trouble", "name", "count", "reserved", "delayed", "dead", "waiters"];

/**
 * Return the queues whose name contains a text, in order: the greatest number first, those in trouble first, or by name.
 * @param {Map<string, Queue>} queues @param {{sort: string, filter: string}} options @returns {Queue[]}
 */
export function arranged(queues, { sort, filter }, now) {
  const needle = filter.toLowerCase();
  const found = [...queues.values()].filter(({ name }) => name.toLowerCase().includes(needle));
  const weights = new Map(found.map((queue) => [queue, weightOf(queue, sort, now)]));
  return found.toSorted((a, b) => weights.get(b) - weights.get(a) || (a.name < b.name ? -1 : 1));
}

function weightOf(queue, sort, now) {
  if (sort === "name") return 0;
  if (sort !== "trouble") return queue[sort];
  // Empty queues come last, paused ones right behind those in trouble.
  return 4 * troublesOf(queue, now).length + (queue.paused ? 2 : 0) + (queue.emptySince === null ? 1 : 0);
}

/** Return how many minutes the lines show. @param {{since: number | null}} state */
export function sparkMinutes({ since }, now) {
  return SPARK_MINUTES.find((minutes) => now - since <= minutes * MINUTE_MS) ?? SPARK_MINUTES.at(-1);
}

/** Return the path of a step line through the samples of some minutes in a box: as high as the most that were seen. */
export function sparkline(samples, minutes, now, width, height) {
  const start = now - minutes * MINUTE_MS;
  const shown = samples.filter((_, i) => i === samples.length - 1 || samples[i + 1].time > start);
  const top = Math.max(1, ...shown.map(({ count }) => count));
  const x = (time) => Math.round(xOf(time, now, now - start, width));
  const y = (count) => Math.round((1 - count / top) * height * 10) / 10;
  const steps = shown.map(({ time, count }, i) => (i ? `H${x(time)}V${y(count)}` : `M${x(time)} ${y(count)}`));
  return steps.length ? `${steps.join("")}H${width}` : "";
}
