import assert from "node:assert/strict";
import { test } from "node:test";
import {
  WINDOW, aliveOf, changed, chart, connected, forgot, initial, isName, labelOf, linesOf, niceTop, recalled, received, sampled, scrollTo, took, windowOf,
} from "../../static/js/state.js";

const MINUTE = 60_000;

test("a state that comes in replaces the numbers and is drawn", () => {
  let state = connected(initial("jobs"), "live");
  state = received(state, { count: 3, reserved: 1, dead: 2, waiters: 4, next: [{ preview: "a", bytes: 1 }] }, 1000);
  assert.deepEqual([state.count, state.reserved, state.dead, state.waiters, state.known], [3, 1, 2, 4, true]);
  assert.deepEqual(state.samples, [{ time: 1000, count: 3 }]);
  assert.equal(received(state, { count: 3 }, 2000).version, 2);
});

test("a state is never changed in place", () => {
  const state = Object.freeze(initial("jobs"));
  received(state, { count: 1 }, 0);
  took(state, [{ how: "pop", message: "a" }]);
  assert.equal(state.count, 0);
});

test("the error is kept while there is one", () => {
  const away = connected(initial("jobs"), "fault", { code: "redis_away" });
  assert.equal(away.error.code, "redis_away");
  assert.equal(connected(away, "live").error, null);
});

test("a fault is told apart: Redis is away, Redis refuses, the app refuses", () => {
  const label = (connection, code) => labelOf(connected(initial("jobs"), connection, { code }));
  assert.equal(label("live"), "live");
  assert.equal(label("fault", "redis_away"), "fault");
  assert.equal(label("fault", "wrong_type"), "trouble");
  assert.equal(label("fault", "redis_misconfigured"), "trouble");
  assert.equal(label("fault", "too_many_waiting"), "away");
});

test("samples that add nothing, and those that left the window, are not kept", () => {
  let samples = sampled([], 1, 0);
  samples = sampled(samples, 1, 10);
  assert.equal(samples.length, 1);
  samples = sampled(samples, 2, MINUTE);
  samples = sampled(samples, 3, MINUTE + WINDOW + 1);
  // The one at the edge stays: it is the depth with which the window begins.
  assert.deepEqual(samples.map(({ count }) => count), [2, 3]);
});

test("many samples are thinned, and the peak stays", () => {
  let samples = [];
  for (let i = 0; i < 5000; i += 1) samples = sampled(samples, i === 4600 ? 1_000_000 : i % 7, 1000 + i);
  assert.ok(samples.length <= 600);
  assert.ok(samples.some(({ count }) => count === 1_000_000));
  assert.ok(samples.every(({ time }, i) => i === 0 || time >= samples[i - 1].time));
});

test("the chart is a step line that ends now", () => {
  const now = WINDOW;
  const { line, area, top, least, most } = chart([{ time: 0, count: 0 }, { time: WINDOW / 2, count: 10 }], now, 600, 80);
  assert.equal(line, "M0 80H300V0H600");
  assert.equal(area, "M0 80H300V0H600V80H0Z");
  assert.deepEqual([top, least, most], [10, 0, 10]);
  assert.equal(chart([], now, 600, 80).line, "");
  const minutes = (age) => chart([{ time: now - age, count: 1 }], now, 600, 80).minutes;
  assert.deepEqual([0, 1, 1.5, 2, 3, 5, 9].map((age) => minutes(age * MINUTE)), [1, 1, 2, 2, 5, 5, 5]);
});

test("the chart's top is a round number", () => {
  assert.deepEqual([0, 1, 3, 7, 10, 11, 21, 999, 1_000_001].map(niceTop), [1, 1, 5, 10, 10, 20, 50, 1000, 2_000_000]);
});

test("taken messages stand with the newest on top, and go by their id", () => {
  let state = took(initial("jobs"), [{ how: "pop", message: "a" }, { how: "pop", message: "b" }]);
  state = took(state, [{ how: "reserve", message: "c", until: 1 }]);
  assert.deepEqual(state.taken.map(({ message }) => message), ["c", "b", "a"]);
  const [c, b] = state.taken;
  state = changed(forgot(state, b.id), c.id, { until: 9 });
  assert.deepEqual(state.taken.map(({ message, until }) => [message, until]), [["c", 9], ["a", undefined]]);
  assert.deepEqual(recalled(state, b).taken.map(({ message }) => message), ["c", "b", "a"]);
});

test("a list shows the rows in view and a few around them", () => {
  const list = { count: 1000, row: 40, view: 400, scroll: 4000 };
  assert.deepEqual(windowOf(list), { height: 40_000, first: 96, last: 114, top: 96 * 40 });
  assert.deepEqual(windowOf({ ...list, count: 0, scroll: 0 }), { height: 0, first: 0, last: 0, top: 0 });
});

test("a list that is longer than an element can be reaches its last row and skips none", () => {
  const list = { count: 1_000_000, row: 44, view: 600 };
  const { height } = windowOf({ ...list, scroll: 0 });
  assert.ok(height <= 16_000_000);
  assert.equal(windowOf({ ...list, scroll: height - 600 }).last, 1_000_000);
  let reached = 0;
  for (let scroll = 0; scroll <= height - 600; scroll += 100) {
    const { first, last } = windowOf({ ...list, scroll });
    assert.ok(first <= reached, `row ${reached} is skipped at ${scroll}`);
    reached = last;
  }
});

test("a row is scrolled to only where it is not in view", () => {
  for (const count of [1000, 1_000_000]) {
    const list = { count, row: 44, view: 440 };
    for (const place of [0, 3, 500, 777, count - 1]) {
      const scroll = scrollTo(place, { ...list, scroll: 300 });
      const { first, top } = windowOf({ ...list, scroll });
      const y = top + (place - first) * 44 - scroll;
      assert.ok(y >= -0.01 && y + 44 <= 440.01, `row ${place} of ${count} at ${y}`);
    }
    if (count === 1000) assert.equal(scrollTo(10, { ...list, scroll: 300 }), 300);
  }
  assert.equal(scrollTo(3, { count: 5, row: 44, view: 440, scroll: 0 }), 0);
});

test("names are checked as the app checks them, but for those that no URL can hold", () => {
  assert.ok(["a", "A-Z_0.9:x", "x".repeat(128)].every(isName));
  assert.ok(!["", " ", "a b", "a/b", "é", ".", "..", "x".repeat(129)].some(isName));
});

test("dead letters know the queue they come from", () => {
  assert.equal(aliveOf("jobs.dead"), "jobs");
  assert.equal(aliveOf("a.dead.dead"), "a.dead");
  assert.equal(aliveOf(".dead"), null);
  assert.equal(aliveOf("jobs"), null);
});

test("lines are messages; empty ones are none, and a CR before the end belongs to the end", () => {
  assert.deepEqual(linesOf("a\r\n\n b \nc"), ["a", " b ", "c"]);
});
