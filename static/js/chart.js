/**
 * The chart of the queue's depth, without any DOM: samples over time, and the lines drawn from them.
 *
 * @typedef {{time: number, count: number}} Sample time: milliseconds
 */

const MINUTE_MS = 60_000;
export const CHART_WINDOW_MS = 5 * MINUTE_MS; // the longest time that the chart shows
const CHART_SPANS_MS = [MINUTE_MS, 2 * MINUTE_MS, CHART_WINDOW_MS]; // it starts short, so that a first change is visible
const MAX_SAMPLES = 600;

/**
 * Add a sample and drop those that have left the window, except the last of them: the line starts at its depth.
 * A sample that repeats the last count is not added.
 */
export function addSample(samples, count, now) {
  const last = samples.at(-1);
  if (last && last.count === count) return samples;
  const kept = samples.filter((sample, i) => samples[i + 1] === undefined || samples[i + 1].time > now - CHART_WINDOW_MS);
  kept.push({ time: now, count });
  if (kept.length <= MAX_SAMPLES) return kept;
  // Too many: of every two neighbours in the older half, keep the higher one, so that peaks survive.
  const half = kept.length >> 1;
  const older = [];
  for (let i = 0; i < half; i += 2) {
    const [a, b] = [kept[i], kept[i + 1]];
    older.push(i + 1 < half && b.count > a.count ? b : a);
  }
  return [...older, ...kept.slice(half)];
}

/**
 * Draw the chart in a box of `width` x `height`: a step line of the depth, and the area beneath it.
 * @returns {{line: string, area: string, top: number, least: number, most: number, minutes: number}}
 *     top: the depth at the upper edge; minutes: the time that the width covers
 */
export function chartLines(samples, now, width, height) {
  if (!samples.length) return { line: "", area: "", top: 1, least: 0, most: 0, minutes: 1 };
  const span = CHART_SPANS_MS.find((one) => samples[0].time >= now - one) ?? CHART_WINDOW_MS;
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
  return { line, area, top, least, most, minutes: span / MINUTE_MS };
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
