/**
 * The charts of a queue, without any DOM: what is known over time, and the lines drawn from it.
 *
 * @typedef {{time: number, count: number | null}} Sample the depth from a time (milliseconds) on; null: nobody knows
 * @typedef {{time: number, length: number, in: number | null, out: number | null}} Step
 *     messages a second that came in and went out in a step, which began at a time and has a length (milliseconds)
 * @typedef {{at: number, step: number, max: (number | null)[], count: (number | null)[], in: (number | null)[],
 *            out: (number | null)[]}} History as the app tells it
 */

const MINUTE_MS = 60_000;
export const CHART_WINDOW_MS = 30 * MINUTE_MS; // the longest time that a chart shows
const CHART_SPANS_MS = [1, 2, 5, 10, 30].map((minutes) => minutes * MINUTE_MS); // short at first, so that a first change is visible
const MAX_SAMPLES = 600;
const QUIET_STEPS = 2; // after which a step that was not told is one in which nothing happened

/**
 * Add a sample and drop those that have left the window, except the last of them: the line starts at its depth.
 * A sample that repeats the last count is not added.
 */
export function addSample(samples, count, now) {
  const past = upTo(now, samples);
  const last = past.at(-1);
  if (last ? last.count === count : count === null) return past;
  const kept = past.filter((sample, i) => past[i + 1] === undefined || past[i + 1].time > now - CHART_WINDOW_MS);
  kept.push({ time: now, count });
  if (kept.length <= MAX_SAMPLES) return kept;
  // Too many: of every two neighbours in the older half, keep the higher one, so that peaks survive.
  const half = kept.length >> 1;
  const older = [];
  for (let i = 0; i < half; i += 2) {
    const [a, b] = [kept[i], kept[i + 1]];
    if (a.count === null || b.count === null) older.push(a, b);
    else older.push(i + 1 < half && b.count > a.count ? b : a);
  }
  return [...older, ...kept.slice(half)];
}

/** Return the samples without those of the future: after a clock was set back, nobody knows when they were taken. */
export function upTo(now, samples) {
  return samples.at(-1)?.time > now ? samples.filter(({ time }) => time <= now) : samples;
}

/**
 * Fill the time of which this page knows nothing, up to now, with what the app knows.
 * @param {Sample[]} samples @param {History} history @param {number} offset milliseconds that the app's clock is ahead
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

/** Add the steps that the app has told to those that are known, in their place. @param {Step[]} steps */
export function addSteps(steps, history, offset) {
  const told = stepsOf(history, offset);
  const [first, last] = [told[0].time, told.at(-1).time];
  return [...steps.filter(({ time, length }) => time < first - length / 2 && time > last - CHART_WINDOW_MS), ...told];
}

/** @returns {Step[]} */
function stepsOf({ at, step, in: came, out: went }, offset) {
  const [start, length] = [at * 1000 - offset, step * 1000];
  const rate = (number) => (number === null ? null : number / step);
  return came.map((number, i) => ({ time: start + i * length, length, in: rate(number), out: rate(went[i]) }));
}

/** Join what two events told of the history; the later one may tell some of it again. @returns {History | undefined} */
export function joinHistories(before, after) {
  if (!before || !after) return before ?? after;
  const kept = Math.round((after.at - before.at) / before.step);
  if (kept < 0 || kept > before.in.length) return after;
  const max = Math.round(CHART_WINDOW_MS / 1000 / before.step);
  const joined = (key) => [...before[key].slice(0, kept), ...after[key]].slice(-max);
  const dropped = kept + after.in.length - joined("in").length;
  return { at: before.at + dropped * before.step, step: before.step, max: joined("max"), count: joined("count"), in: joined("in"), out: joined("out") };
}

/** Return how much time the charts show, in milliseconds. */
export function spanOf(samples, now) {
  const first = samples.find(({ count }) => count !== null);
  return CHART_SPANS_MS.find((span) => !first || first.time >= now - span) ?? CHART_WINDOW_MS;
}

/** Return the messages a second that came in and went out in the last step that has ended. @param {Step[]} steps */
export function currentRates(steps, now) {
  const last = steps.at(-1);
  const isRecent = last && now < last.time + (1 + QUIET_STEPS) * last.length;
  return isRecent && last.in !== null ? { in: last.in, out: last.out } : { in: 0, out: 0 };
}

/** Return where a time is drawn: always inside the chart, even if a clock was set forward or back since then. */
export function xOf(time, now, span, width) {
  return Math.min(1, Math.max(0, 1 - (now - time) / span)) * width;
}

/**
 * Draw the depth in a box of `width` x `height`: a step line, and the area beneath it. Where nobody knows it, it has gaps.
 * @returns {{line: string, area: string, top: number, least: number, most: number}} top: the depth at the upper edge
 */
export function depthLines(samples, now, span, width, height) {
  const start = now - span;
  const shown = samples.filter((sample, i) => samples[i + 1] === undefined || samples[i + 1].time > start);
  const counts = shown.map(({ count }) => count).filter((count) => count !== null);
  if (!counts.length) return { line: "", area: "", top: 1, least: 0, most: 0 };
  const [least, most] = [Math.min(...counts), Math.max(...counts)];
  const top = niceTop(most);
  const points = shown.map(({ time, count }) => ({ x: round(xOf(time, now, span, width)), y: count === null ? null : round(height - (count / top) * height) }));
  return { ...stepLines([...points, { x: round(width), y: null }], round(height)), top, least, most };
}

/**
 * Draw messages in and out a second, each as a step line.
 * @param {Step[]} steps @param {boolean} isLive whether nothing has happened in steps that were not told
 * @returns {{in: string, out: string, most: {in: number, out: number}}}
 */
export function rateLines(steps, now, span, width, height, isLive) {
  const start = now - span;
  const shown = steps.filter(({ time, length }) => time + length > start);
  const highest = (key) => Math.max(0, ...shown.map((step) => step[key] ?? 0));
  const most = { in: highest("in"), out: highest("out") };
  const top = Math.max(most.in, most.out, Number.MIN_VALUE);
  const line = (key) => stepLines(pointsOf(key), round(height)).line;

  function pointsOf(key) {
    const x = (time) => round(xOf(time, now, span, width));
    const y = (rate) => (rate === null ? null : round(height - (rate / top) * height));
    const points = [];
    for (const [i, step] of shown.entries()) {
      points.push({ x: x(step.time), y: y(step[key]) });
      const [end, next] = [step.time + step.length, shown[i + 1]];
      if (!next ? !isLive || now < end + QUIET_STEPS * step.length : next.time > end + step.length / 2) points.push({ x: x(end), y: null });
      else if (!next) points.push({ x: x(end), y: y(0) });
    }
    return [...points, { x: round(width), y: null }];
  }
  return { in: line("in"), out: line("out"), most };
}

/** Return a step line through points, each of which holds until the next, and the area down to `bottom`; null is a gap. */
function stepLines(points, bottom) {
  let [line, area, began] = ["", "", null]; // began: where the present part of the line did
  for (const { x, y } of points) {
    if (began === null && y !== null) [line, area, began] = [`${line}M${x} ${y}`, `${area}M${x} ${bottom}V${y}`, x];
    else if (began !== null) [line, area] = [line, area].map((path) => `${path}H${x}${y === null ? "" : `V${y}`}`);
    if (y === null && began !== null) [area, began] = [`${area}V${bottom}Z`, null];
  }
  return { line, area };
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
