/** All queues as the page knows them: what changes, which are in trouble, and in which order they stand. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { aged, arranged, changed, connected, initialOverview, listed, merged, onThisClock, sparkMinutes, sparkline, troublesOf } from "../../static/js/state/queueList.js";

const counts = (name, others = {}) => ({ name, count: 0, reserved: 0, delayed: 0, dead: 0, waiters: 0, paused: false, ...others });
const list = (...queues) => ({ queues, complete: true, unnamed: 0 });
const change = (queues, removed = []) => ({ ...list(...queues), removed });
const names = (state, options, now = 0) => arranged(state.queues, { sort: "trouble", filter: "", ...options }, now).map(({ name }) => name);

/** The state after the queue "a" had these counts, one each ten seconds; at the end 10 s have passed since the last. */
function after(...steps) {
  const states = steps.map((step, i) => [typeof step === "number" ? { count: step } : step, i * 10_000]);
  let state = initialOverview();
  for (const [others, time] of states) state = changed(state, change([counts("a", others)]), time);
  return troublesOf(state.queues.get("a"), states.length * 10_000);
}

test("a change replaces what it names, and nothing else", () => {
  let state = listed(initialOverview(), list(counts("a", { count: 1 }), counts("b")), 0);
  state = changed(state, change([counts("a", { count: 2 }), counts("c")], ["b"]), 1000);
  assert.deepEqual([...state.queues.values()].map(({ name, count, emptySince }) => [name, count, emptySince]), [["a", 2, null], ["b", 0, 1000], ["c", 0, null]]);
  state = listed(state, list(counts("c")), 2000);
  assert.deepEqual([...state.queues.values()].map(({ emptySince }) => emptySince), [2000, 1000, null]);
  assert.deepEqual(merged(list(counts("a"), counts("b")), change([counts("c"), counts("a", { count: 3 })], ["b"])).queues.map(({ name, count }) => [name, count]), [["c", 0], ["a", 3]]);
});

test("what was seen before an interruption is forgotten when the list comes again", () => {
  let state = listed(initialOverview(), list(counts("a", { count: 1 })), 0);
  state = connected(connected(state, "away", { code: "offline" }), "live");
  assert.equal(state.error, null);
  state = listed(state, list(counts("b", { count: 1 })), 600_000);
  assert.deepEqual([...state.queues.keys()], ["b"]);
  assert.equal(state.since, 600_000);
  state = listed(state, list(counts("c")), 700_000); // told again, without an interruption
  assert.deepEqual([[...state.queues.keys()], state.since], [["b", "c"], 600_000]);
});

test("an empty queue is shown for a minute", () => {
  let state = changed(listed(initialOverview(), list(counts("a", { count: 1 })), 0), change([], ["a"]), 1000);
  assert.equal(aged(state, 61_000), state);
  assert.equal(aged(state, 61_001).queues.size, 0);
  state = changed(state, change([counts("a", { count: 1 })]), 2000);
  assert.equal(aged(state, 90_000).queues.size, 1);
});

test("a queue grows while more wait and nobody consumes", () => {
  assert.deepEqual(after(1, 2), ["growing"]);
  assert.deepEqual(after(5, 9, 9, 12), ["growing"]);
  assert.deepEqual(after(5), []); // whether it grows is not known
  assert.deepEqual(after(5, 5), []);
  assert.deepEqual(after(1, 5, 4), []); // somebody took one
  assert.deepEqual(after(1, { count: 5, waiters: 1 }), []);
  assert.deepEqual(after(1, { count: 5, reserved: 1 }), []);
  assert.deepEqual(after(1, { count: 5, paused: true }), []); // which is reason enough
  assert.deepEqual(after(1, 5, ...Array(12).fill(5)), []); // it stopped growing
  assert.deepEqual(after(1, { count: 5, dead: 1 }), ["dead", "growing"]);
});

test("what the app knows of the last minutes is known at once", () => {
  const history = { at: 1000, step: 10, count: [null, 2, 2, 5], out: [null, 0, 0, 0] };
  let state = listed(initialOverview(), list(counts("a", { count: 5, history }), counts("b")), 1_050_000);
  assert.deepEqual(state.queues.get("a").samples, [{ time: 1_020_000, count: 2 }, { time: 1_040_000, count: 5 }]);
  assert.equal(state.since, 1_020_000);
  assert.deepEqual(troublesOf(state.queues.get("a"), 1_050_000), ["growing"]);
  const consumed = { ...history, out: [null, 0, 0, 3] };
  state = listed(initialOverview(), list(counts("a", { count: 5, history: consumed })), 1_050_000);
  assert.deepEqual(troublesOf(state.queues.get("a"), 1_050_000), []);
  assert.equal(onThisClock(list({ history }, {}), 5000).queues[0].history.at, 995);
});

test("a message that has just come is no trouble", () => {
  const state = changed(listed(initialOverview(), list(counts("a")), 0), change([counts("a", { count: 1 })]), 1000);
  assert.deepEqual(troublesOf(state.queues.get("a"), 10_999), []);
  assert.deepEqual(troublesOf(state.queues.get("a"), 11_000), ["growing"]);
});

test("those in trouble come first, then the paused, the empty last", () => {
  const all = [counts("a"), counts("gone"), counts("b", { count: 9 }), counts("p", { paused: true }), counts("z", { dead: 1 })];
  let state = listed(initialOverview(), list(...all), 0);
  state = changed(state, change([], ["gone"]), 0);
  assert.deepEqual(names(state), ["z", "p", "a", "b", "gone"]);
  assert.deepEqual(names(state, { sort: "count" }), ["b", "a", "gone", "p", "z"]);
  assert.deepEqual(names(state, { sort: "name" }), ["a", "b", "gone", "p", "z"]);
  assert.deepEqual(names(state, { filter: "ON" }), ["gone"]);
});

test("a line shows what was seen, as high as the most of it", () => {
  const state = listed(initialOverview(), list(counts("a", { count: 2 })), 0);
  const { samples } = changed(state, change([counts("a", { count: 4 })]), 30_000).queues.get("a");
  assert.equal(sparkMinutes(state, 60_000), 1);
  assert.equal(sparkMinutes(state, 60_001), 2);
  assert.equal(sparkMinutes(state, 9e9), 10);
  assert.equal(sparkline(samples, 1, 60_000, 100, 10), "M0 5H50V0H100");
  assert.equal(sparkline(samples, 1, 90_001, 100, 10), "M0 0H100");
  assert.equal(sparkline([], 1, 0, 100, 10), "");
});

test("after a clock is set back the line stays inside its box and an empty queue is not kept for years", () => {
  let state = listed(initialOverview(), list(counts("a", { count: 2 }), counts("b")), 1e12);
  assert.equal(sparkline(state.queues.get("a").samples, 1, 5000, 100, 10), "M100 0H100");
  state = changed(state, change([counts("a", { count: 4 })], ["b"]), 5000);
  assert.deepEqual(state.queues.get("a").samples, [{ time: 5000, count: 4 }]);
  state = changed(state, change([], ["a"]), 1e12);
  assert.deepEqual([...aged(state, 70_000).queues.keys()], []);
});

test("a queue that changes all the time has a sample for each step, and no more than the lines show", () => {
  let state = initialOverview();
  for (let time = 0; time < 3_600_000; time += 1000) state = changed(state, change([counts("a", { count: time / 1000 })]), time);
  const { samples } = state.queues.get("a");
  assert.ok(samples.length > 55 && samples.length < 65, samples.length);
  assert.equal(samples.at(-1).count, 3599);
});
