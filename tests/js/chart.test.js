/** The charts: the samples that are kept, those from the server's history, and the lines drawn from them. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { CHART_WINDOW_MS, addSample, addSteps, currentRates, depthLines, fillSamples, joinHistories, niceTop, rateLines, spanOf, xOf } from "../../static/js/state/chart.js";

const MINUTE_MS = 60_000;

test("samples that repeat the depth or have left the window are dropped", () => {
  let samples = addSample([], 1, 0);
  samples = addSample(samples, 1, 10);
  assert.equal(samples.length, 1);
  samples = addSample(samples, 2, MINUTE_MS);
  samples = addSample(samples, 3, MINUTE_MS + CHART_WINDOW_MS + 1);
  // The one at the edge stays: the window begins with its depth.
  assert.deepEqual(samples.map(({ count }) => count), [2, 3]);
});

test("many samples are thinned out, but the peak stays", () => {
  let samples = [];
  for (let i = 0; i < 5000; i += 1) samples = addSample(samples, i === 4600 ? 1_000_000 : i % 7, 1000 + i);
  assert.ok(samples.length <= 600);
  assert.ok(samples.some(({ count }) => count === 1_000_000));
  assert.ok(samples.every(({ time }, i) => i === 0 || time >= samples[i - 1].time));
});

test("thinned samples keep the gaps in which the page did not follow", () => {
  let samples = [];
  for (let i = 0; i < 5000; i += 1) samples = addSample(samples, i === 4700 ? null : i % 7, 1000 + i);
  assert.ok(samples.some(({ count }) => count === null));
});

test("the depth is a step line that ends now, with gaps where it is unknown", () => {
  const samples = [{ time: 0, count: 0 }, { time: 50, count: 10 }];
  const { line, area, top, least, most } = depthLines(samples, 100, 100, 600, 80);
  assert.equal(line, "M0 80H300V0H600");
  assert.equal(area, "M0 80V80H300V0H600V80Z");
  assert.deepEqual([top, least, most], [10, 0, 10]);
  const withGap = [...samples, { time: 60, count: null }, { time: 80, count: 5 }, { time: 90, count: null }];
  assert.equal(depthLines(withGap, 100, 100, 600, 80).line, "M0 80H300V0H360M480 40H540");
  assert.equal(depthLines([], 100, 100, 600, 80).line, "");
});

test("the charts show more time as the history grows", () => {
  const minutes = (age) => spanOf([{ time: 0, count: null }, { time: 1e9 - age * MINUTE_MS, count: 1 }], 1e9) / MINUTE_MS;
  assert.deepEqual([0, 1, 1.5, 2, 3, 7, 12, 45].map(minutes), [1, 1, 2, 2, 5, 10, 30, 30]);
  assert.equal(spanOf([], 1e9), MINUTE_MS);
});

const HISTORY = { at: 1000, step: 10, max: [4, null, 9], count: [4, null, 7], in: [0, null, 50], out: [0, null, 20] };

test("the server's history fills the gaps and nothing else", () => {
  const filled = [[1_000_000, 4], [1_010_000, null], [1_020_000, 9], [1_030_000, 7]].map(([time, count]) => ({ time, count }));
  assert.deepEqual(fillSamples([], HISTORY, 0), filled);
  assert.deepEqual(fillSamples([], HISTORY, 5000)[0], { time: 995_000, count: 4 }); // the server's clock is ahead
  const own = [{ time: 1_001_000, count: 3 }, { time: 1_024_000, count: null }];
  const rest = [{ time: 1_024_000, count: 9 }, { time: 1_030_000, count: 7 }];
  assert.deepEqual(fillSamples(own, HISTORY, 0), [...own, ...rest]);
  const known = [{ time: 1_001_000, count: 3 }];
  assert.equal(fillSamples(known, HISTORY, 0), known);
});

test("steps that are reported again or later go to their places", () => {
  const steps = addSteps([], HISTORY, 0);
  assert.deepEqual(steps.map(({ time, in: arrivals, out }) => [time, arrivals, out]), [[1_000_000, 0, 0], [1_010_000, null, null], [1_020_000, 5, 2]]);
  assert.deepEqual(addSteps(steps, HISTORY, 0), steps);
  const later = { at: 1030, step: 10, max: [7], count: [7], in: [10], out: [10] };
  assert.deepEqual(addSteps(steps, later, 400).map(({ time }) => time), [1_000_000, 1_010_000, 1_020_000, 1_029_600]);
  assert.deepEqual(addSteps(steps, { ...later, at: 1030 + CHART_WINDOW_MS / 1000 }, 0).length, 1);
  const joined = { at: 1000, step: 10, max: [4, null, 9, 7], count: [4, null, 7, 7], in: [0, null, 50, 10], out: [0, null, 20, 10] };
  assert.deepEqual(joinHistories(HISTORY, later), joined);
  assert.deepEqual(joinHistories(joined, HISTORY), HISTORY);
  assert.deepEqual([joinHistories(undefined, later), joinHistories(later, undefined)], [later, later]);
  let long = HISTORY;
  for (let i = 0; i < 300; i += 1) long = joinHistories(long, { ...later, at: 1030 + 10 * i });
  assert.deepEqual([long.in.length, long.at], [180, 1030 + 10 * 120]);
});

test("the rates are two lines with gaps where they are unknown, and zero since the last event", () => {
  const steps = addSteps([], HISTORY, 0);
  const now = 1_100_000;
  const quiet = rateLines(steps, now, 100_000, 100, 50, true);
  assert.equal(quiet.in, "M0 50H10M20 0H30V50H100");
  assert.equal(quiet.out, "M0 50H10M20 30H30V50H100");
  assert.deepEqual(quiet.most, { in: 5, out: 2 });
  assert.equal(rateLines(steps, now, 100_000, 100, 50, false).in, "M0 50H10M20 0H30");
  assert.equal(rateLines(steps, 1_035_000, 100_000, 100, 50, true).in, "M65 50H75M85 0H95"); // the present step is incomplete
  assert.deepEqual(currentRates(steps, 1_035_000), { in: 5, out: 2 });
  assert.deepEqual(currentRates(steps, now), { in: 0, out: 0 });
  assert.deepEqual(currentRates([], now), { in: 0, out: 0 });
});

test("after a clock was set back, nothing is drawn outside the chart, and samples of the future are dropped", () => {
  const [now, span, width, height] = [1_000_000, MINUTE_MS, 600, 80];
  assert.deepEqual([now - 2 * span, now - span, now, now + span].map((time) => xOf(time, now, span, width)), [0, 0, 600, 600]);
  const samples = [3, 7, null, 9].map((count, i) => ({ time: 1e12 + i * 1000, count }));
  const { line, area } = depthLines(samples, now, span, width, height);
  const steps = addSteps([], { ...HISTORY, at: 1e9 }, 0);
  const rates = rateLines(steps, now, span, width, height, true);
  const numbers = [line, area, rates.in, rates.out].join(" ").match(/-?[\d.]+/g).map(Number);
  assert.ok(numbers.length > 8 && numbers.every((number) => number >= 0 && number <= width), `${numbers}`);
  assert.deepEqual(addSample(samples, 9, now), [{ time: now, count: 9 }]); // the depth is drawn although it has not changed
  const before = { time: now - 1000, count: 9 };
  assert.deepEqual(addSample([before, ...samples], 9, now), [before]);
});

test("the chart's top is a round number", () => {
  assert.deepEqual([0, 1, 3, 7, 10, 11, 21, 999, 1_000_001].map(niceTop), [1, 1, 5, 10, 10, 20, 50, 1000, 2_000_000]);
});
