/**
 * The charts of a queue, without any DOM: the depth and the rates over time, and the lines drawn from them.
 *
 * @typedef {{time: number, count: number | null}} Sample the depth from a time on, milliseconds; null: unknown
 * @typedef {{time: number, length: number, in: number | null, out: number | null}} Step
 *     the messages per second that came in and went out from `time` on, for `length`, milliseconds; null: unknown
 * @typedef {import("../client/types.js").History} History
 */

const MINUTE_MS = 60_000;
export const CHART_WINDOW_MS = 30 * MINUTE_MS; // the most that a chart shows
// Short at first, so that a first change is visible.
const CHART_SPANS_MS = [1, 2, 5, 10, 30].map((minutes) => minutes * MINUTE_MS);
const MAX_SAMPLES = 600;
const QUIET_STEPS = 2; // if no step is reported for this long, nothing has happened

// --- the depth

/**
 * Add a sample and drop those that have left the window, except the last of them: the line starts at its depth.
 * A sample that repeats the last count is not added.
 * @param {Sample[]} samples
 */
export function addSample(samples, count, now) {
  const past = upTo(now, samples);
  const last = past.at(-1);
  if (last ? last.count === count : count === null) return past;
  const kept = past.filter((_, i) => past[i + 1] === undefined || past[i + 1].time > now - CHART_WINDOW_MS);
  kept.push({ time: now, count });
  return kept.length > MAX_SAMPLES ? thinned(kept) : kept;
}

/** Thin out the older half: of every two neighbours, keep the higher one, so that peaks survive, and keep gaps. */
function thinned(samples) {
  const half = samples.length >> 1;
  const older = [];
  for (let i = 0; i < half; i += 2) {
    const [a, b] = [samples[i], samples[i + 1]];
    if (a.count === null || b.count === null) older.push(a, b);
    else older.push(i + 1 < half && b.count > a.count ? b : a);
  }
  return [...older, ...samples.slice(half)];
}

/** Return the samples without those in the future: once a clock was set back, their real times are unknown. */
export function upTo(now, samples) {
  return samples.at(-1)?.time > now ? samples.filter(({ time }) => time <= now) : samples;
}

/**
 * Fill the time in which this page did not follow the queue from the server's history.
 * @param {Sample[]} samples @param {History} history @param {number} offset how far the server's clock is ahead,
 *     milliseconds
 */
export function fillSamples(samples, history, offset) {
  const gap = samples.at(-1);
  if (gap && gap.count !== null) return samples;
  const since = gap?.time ?? -Infinity;
  let filled = samples;
  for (const [i, { time, length }] of stepsOf(history, offset).entries()) {
    if (time + length <= since) continue;
    filled = addSample(filled, history.max[i], Math.max(time, since));
    filled = addSample(filled, history.count[i], time + length);
  }
  return filled;
}

// --- the rates

/** Add the steps of a history, some of which may be known already. @param {Step[]} steps @param {History} history */
export function addSteps(steps, history, offset) {
  const added = stepsOf(history, offset);
  const [first, last] = [added[0].time, added.at(-1).time];
  return [...steps.filter(({ time, length }) => time < first - length / 2 && time > last - CHART_WINDOW_MS), ...added];
}

/** @param {History} history @returns {Step[]} */
function stepsOf({ at, step, in: arrivals, out: departures }, offset) {
  const [start, length] = [at * 1000 - offset, step * 1000];
  const rate = (number) => (number === null ? null : number / step);
  return arrivals.map((number, i) => {
    return { time: start + i * length, length, in: rate(number), out: rate(departures[i]) };
  });
}

/** Join the histories of two events; the later one may repeat a part of the earlier. @returns {History | undefined} */
export function joinHistories(before, after) {
  if (!before || !after) return before ?? after;
  const kept = Math.round((after.at - before.at) / before.step);
  if (kept < 0 || kept > before.in.length) return after;
  const max = Math.round(CHART_WINDOW_MS / 1000 / before.step);
  const joined = (key) => [...before[key].slice(0, kept), ...after[key]].slice(-max);
  const [most, count, arrivals, departures] = ["max", "count", "in", "out"].map(joined);
  const dropped = kept + after.in.length - arrivals.length;
  const at = before.at + dropped * before.step;
  return { at, step: before.step, max: most, count, in: arrivals, out: departures };
}

/** Return the messages per second that came in and went out in the last complete step. @param {Step[]} steps */
export function currentRates(steps, now) {
  const last = steps.at(-1);
  const isRecent = last && now < last.time + (1 + QUIET_STEPS) * last.length;
  return isRecent && last.in !== null ? { in: last.in, out: last.out } : { in: 0, out: 0 };
}

// --- drawing

/** Return how much time the charts show, milliseconds. @param {Sample[]} samples */
export function spanOf(samples, now) {
  const first = samples.find(({ count }) => count !== null);
  return CHART_SPANS_MS.find((span) => !first || first.time >= now - span) ?? CHART_WINDOW_MS;
}

/** Return the x of a time in a chart that ends now: always inside the chart, even if a clock was set since then. */
export function xOf(time, now, span, width) {
  return Math.min(1, Math.max(0, 1 - (now - time) / span)) * width;
}

/**
 * Draw the depth in a box of `width` x `height`: a step line and the area below it, with gaps where it is unknown.
 * @param {Sample[]} samples
 * @returns {{line: string, area: string, top: number, least: number, most: number}} top: the depth at the upper edge
 */
export function depthLines(samples, now, span, width, height) {
  const start = now - span;
  const shown = samples.filter((_, i) => samples[i + 1] === undefined || samples[i + 1].time > start);
  const counts = shown.map(({ count }) => count).filter((count) => count !== null);
  if (!counts.length) return { line: "", area: "", top: 1, least: 0, most: 0 };
  const [least, most] = [Math.min(...counts), Math.max(...counts)];
  const top = niceTop(most);
  const y = (count) => (count === null ? null : round(height - (count / top) * height));
  const points = shown.map(({ time, count }) => ({ x: round(xOf(time, now, span, width)), y: y(count) }));
  return { ...stepLines([...points, { x: round(width), y: null }], round(height)), top, least, most };
}

/**
 * Draw the messages per second that came in and went out, each as a step line.
 * @param {Step[]} steps @param {boolean} isLive if so, nothing has happened since the last step that was reported
 * @returns {{in: string, out: string, most: {in: number, out: number}}}
 */
export function rateLines(steps, now, span, width, height, isLive) {
  const start = now - span;
  const shown = steps.filter(({ time, length }) => time + length > start);
  const highest = (key) => Math.max(0, ...shown.map((step) => step[key] ?? 0));
  const most = { in: highest("in"), out: highest("out") };
  const top = Math.max(most.in, most.out, Number.MIN_VALUE);
  const x = (time) => round(xOf(time, now, span, width));
  const y = (rate) => (rate === null ? null : round(height - (rate / top) * height));

  function pointsOf(key) {
    const points = [];
    for (const [i, step] of shown.entries()) {
      points.push({ x: x(step.time), y: y(step[key]) });
      const [end, next] = [step.time + step.length, shown[i + 1]];
      const isGap = next ? next.time > end + step.length / 2 : !isLive || now < end + QUIET_STEPS * step.length;
      if (isGap) points.push({ x: x(end), y: null });
      else if (!next) points.push({ x: x(end), y: y(0) });
    }
    return [...points, { x: round(width), y: null }];
  }
  const line = (key) => stepLines(pointsOf(key), round(height)).line;
  return { in: line("in"), out: line("out"), most };
}

/** Return a step line through points and the area below it. A point holds until the next; a y of null is a gap. */
function stepLines(points, bottom) {
  let [line, area, isDrawing] = ["", "", false];
  for (const { x, y } of points) {
    if (!isDrawing && y !== null) [line, area, isDrawing] = [`${line}M${x} ${y}`, `${area}M${x} ${bottom}V${y}`, true];
    else if (isDrawing) [line, area] = [line, area].map((path) => `${path}H${x}${y === null ? "" : `V${y}`}`);
    if (y === null && isDrawing) [area, isDrawing] = [`${area}V${bottom}Z`, false];
  }
  return { line, area };
}

function round(number) {
  return Math.round(number * 10) / 10;
}

/** Return the next round number: 1, 2, 5, 10, 20, 50 and so on. */
export function niceTop(most) {
  if (most <= 1) return 1;
  const power = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 5, 10].map((factor) => factor * power).find((top) => top >= most);
}
