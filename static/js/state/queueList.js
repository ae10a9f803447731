/**
 * All queues, without any DOM: their counts, how these changed while the page was open, and which queues have problems.
 * Each function takes the state and returns a new one.
 *
 * @typedef {import("../client/types.js").Counts & {name: string, samples: import("./chart.js").Sample[],
 *           growingSince: number | null, grewAt: number, emptySince: number | null}} Queue
 *     growingSince: since when it has been growing without consumers; grewAt: when it last grew; emptySince: since when
 *     it has been empty; milliseconds
 * @typedef {import("../client/types.js").QueueList} QueueList
 */
import { COUNTS, NO_COUNTS } from "../client/types.js";
import { upTo, xOf } from "./chart.js";

const SAMPLE_STEP_MS = 10_000;
const MINUTE_MS = 60_000;
const SPARK_MINUTES = [1, 2, 5, 10]; // the lines start short, so that a first change is visible
const MAX_SPARK_MS = 10 * MINUTE_MS;
const MIN_GROWING_MS = 10_000; // growth for a shorter time is not reported
const MAX_STILL_MS = 120_000; // a queue that has not grown for longer is not growing
const EMPTY_KEPT_MS = 60_000; // an empty queue is shown for this long

/**
 * Return a list with a change applied.
 * @param {QueueList} list @param {import("../client/types.js").QueueListChange} change
 */
export function mergeChange(list, { queues, removed, complete, unnamed }) {
  const replaced = new Set([...removed, ...queues.map(({ name }) => name)]);
  return { queues: [...list.queues.filter(({ name }) => !replaced.has(name)), ...queues], complete, unnamed };
}

/**
 * Return a list with its histories on this computer's clock.
 * @param {QueueList} list @param {number} offset how far the server's is ahead, milliseconds
 */
export function toLocalClock(list, offset) {
  const local = (history) => history && { ...history, at: history.at - offset / 1000 };
  return { ...list, queues: list.queues.map(({ history, ...queue }) => ({ ...queue, history: local(history) })) };
}

/** Return the state before anything is known. */
export const initialList = () => ({
  connection: "connecting",
  error: null,
  known: false,
  isStale: false, // whether changes may have been missed since the last list
  complete: true,
  unnamed: 0,
  since: null, // when the first list was received
  queues: new Map(), // name -> Queue
});

/** The connection changed; a fault has the error that caused it. */
export function setListConnection(state, connection, error = null) {
  const isLive = connection === "live";
  return { ...state, connection, error: isLive ? null : error, isStale: state.isStale || !isLive };
}

/** The whole list was received. After an interruption the samples start anew, as those in between are unknown. */
export function receiveList(state, { queues, complete, unnamed }, now) {
  const before = new Map(state.isStale ? [] : state.queues);
  const present = new Set(queues.map(({ name }) => name));
  const removed = [...before.keys()].filter((name) => !present.has(name));
  for (const queue of queues) if (queue.history && !before.has(queue.name)) before.set(queue.name, fromHistory(queue));
  const starts = [...before.values()].map(({ samples: [first] }) => first?.time ?? now);
  const since = (state.isStale ? null : state.since) ?? starts.reduce((a, b) => Math.min(a, b), now);
  const next = receiveChange({ ...state, queues: before }, { queues, removed, complete, unnamed }, now);
  return { ...next, known: true, isStale: false, since };
}

/** Return a queue with the samples of its history. */
function fromHistory({ history: { at, step, count, out }, ...queue }) {
  let known;
  count.forEach((number, i) => {
    if (number === null) return;
    const waiters = out[i] > 0 ? 1 : 0; // if messages went out, there was a consumer
    known = withCounts(known, { ...queue, count: number, reserved: 0, waiters }, null, (at + (i + 1) * step) * 1000);
  });
  return known;
}

/** A change of the list was received. */
export function receiveChange(state, { queues, removed, complete, unnamed }, now) {
  const all = new Map(state.queues);
  for (const counts of queues) all.set(counts.name, withCounts(all.get(counts.name), counts, null, now));
  for (const name of removed) {
    const queue = all.get(name);
    if (queue) all.set(name, withCounts(queue, NO_COUNTS, queue.emptySince ?? now, now));
  }
  return { ...state, queues: all, complete, unnamed };
}

/** Time has passed: drop the queues that have been empty for long. */
export function dropEmpty(state, now) {
  // A clock that was set back must not keep an empty queue for years.
  const isOver = ({ emptySince }) => emptySince !== null && Math.abs(now - emptySince) > EMPTY_KEPT_MS;
  const all = [...state.queues].filter(([, queue]) => !isOver(queue));
  return all.length === state.queues.size ? state : { ...state, queues: new Map(all) };
}

/** Return a queue with its new counts. @param {Queue | undefined} before @returns {Queue} */
function withCounts(before, { history: _history, ...counts }, emptySince, now) {
  const samples = addSparkSample(before?.samples ?? [], counts.count, now);
  const grows = before !== undefined && counts.count > before.count;
  const isConsumed = counts.waiters > 0 || counts.reserved > 0 || counts.count < before?.count;
  const growingSince = isConsumed ? null : (before?.growingSince ?? (grows ? now : null));
  return { ...before, ...counts, samples, growingSince, grewAt: grows ? now : (before?.grewAt ?? 0), emptySince };
}

/** Add a sample: one per step, the last of it. @param {import("./chart.js").Sample[]} before */
function addSparkSample(before, count, now) {
  const samples = upTo(now, before);
  const last = samples.at(-1);
  if (last?.count === count) return samples;
  const stepOf = (time) => Math.floor(time / SAMPLE_STEP_MS);
  const isSameStep = last && samples.length > 1 && stepOf(last.time) === stepOf(now);
  const kept = isSameStep ? samples.slice(0, -1) : samples;
  // The line starts at the depth of the last sample that has left the window.
  const first = kept.findLastIndex(({ time }) => time <= now - MAX_SPARK_MS);
  return [...kept.slice(Math.max(0, first)), { time: isSameStep ? last.time : now, count }];
}

// --- problems and order

/** Return the problems of a queue: it has dead letters, or is growing without consumers. @param {Queue} queue */
export function problemsOf(queue, now) {
  const { dead, paused, growingSince, grewAt } = queue;
  const grows = growingSince !== null && now - growingSince >= MIN_GROWING_MS && now - grewAt <= MAX_STILL_MS;
  return [dead > 0 && "dead", grows && !paused && "growing"].filter(Boolean);
}

/** What queues can be sorted by; ties are in the order of their names. */
export const SORTS = Object.freeze(["trouble", "name", ...COUNTS]);

/**
 * Return the queues whose name contains a text: by name, or those with problems or the greatest number first.
 * @param {Map<string, Queue>} queues @param {{sort: string, filter: string}} options @returns {Queue[]}
 */
export function sortQueues(queues, { sort, filter }, now) {
  const needle = filter.toLowerCase();
  const found = [...queues.values()].filter(({ name }) => name.toLowerCase().includes(needle));
  const weights = new Map(found.map((queue) => [queue, weightOf(queue, sort, now)]));
  return found.toSorted((a, b) => weights.get(b) - weights.get(a) || (a.name < b.name ? -1 : 1));
}

function weightOf(queue, sort, now) {
  if (sort === "name") return 0;
  if (sort !== "trouble") return queue[sort];
  // Paused queues come right after those with problems, empty ones last.
  return 4 * problemsOf(queue, now).length + (queue.paused ? 2 : 0) + (queue.emptySince === null ? 1 : 0);
}

// --- the lines

/** Return how many minutes the lines show. @param {{since: number | null}} state */
export function sparkMinutes({ since }, now) {
  return SPARK_MINUTES.find((minutes) => now - since <= minutes * MINUTE_MS) ?? SPARK_MINUTES.at(-1);
}

/** Return the path of a step line through the samples of the last minutes, as high as the greatest depth among them. */
export function sparkline(samples, minutes, now, width, height) {
  const span = minutes * MINUTE_MS;
  const shown = samples.filter((_, i) => i === samples.length - 1 || samples[i + 1].time > now - span);
  const top = Math.max(1, ...shown.map(({ count }) => count));
  const x = (time) => Math.round(xOf(time, now, span, width));
  const y = (count) => Math.round((1 - count / top) * height * 10) / 10;
  const steps = shown.map(({ time, count }, i) => (i ? `H${x(time)}V${y(count)}` : `M${x(time)} ${y(count)}`));
  return steps.length ? `${steps.join("")}H${width}` : "";
}
