/** The chart: which samples are kept, and the lines drawn from them. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { CHART_WINDOW_MS, addSample, chartLines, niceTop } from "../../static/js/chart.js";

const MINUTE_MS = 60_000;

test("samples that add nothing, and those that left the window, are not kept", () => {
  let samples = addSample([], 1, 0);
  samples = addSample(samples, 1, 10);
  assert.equal(samples.length, 1);
  samples = addSample(samples, 2, MINUTE_MS);
  samples = addSample(samples, 3, MINUTE_MS + CHART_WINDOW_MS + 1);
  // The one at the edge stays: it is the depth with which the window begins.
  assert.deepEqual(samples.map(({ count }) => count), [2, 3]);
});

test("many samples are thinned, and the peak stays", () => {
  let samples = [];
  for (let i = 0; i < 5000; i += 1) samples = addSample(samples, i === 4600 ? 1_000_000 : i % 7, 1000 + i);
  assert.ok(samples.length <= 600);
  assert.ok(samples.some(({ count }) => count === 1_000_000));
  assert.ok(samples.every(({ time }, i) => i === 0 || time >= samples[i - 1].time));
});

test("the chart is a step line that ends now", () => {
  const now = CHART_WINDOW_MS;
  const { line, area, top, least, most } = chartLines([{ time: 0, count: 0 }, { time: CHART_WINDOW_MS / 2, count: 10 }], now, 600, 80);
  assert.equal(line, "M0 80H300V0H600");
  assert.equal(area, "M0 80H300V0H600V80H0Z");
  assert.deepEqual([top, least, most], [10, 0, 10]);
  assert.equal(chartLines([], now, 600, 80).line, "");
  const minutes = (age) => chartLines([{ time: now - age, count: 1 }], now, 600, 80).minutes;
  assert.deepEqual([0, 1, 1.5, 2, 3, 5, 9].map((age) => minutes(age * MINUTE_MS)), [1, 1, 2, 2, 5, 5, 5]);
});

test("the chart's top is a round number", () => {
  assert.deepEqual([0, 1, 3, 7, 10, 11, 21, 999, 1_000_001].map(niceTop), [1, 1, 5, 10, 10, 20, 50, 1000, 2_000_000]);
});
