/** All queues: changes, problems, order and lines. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { COUNTS, NO_COUNTS } from "../../static/js/client/types.js";
import {
  SORTS, dropEmpty, initialList, mergeChange, problemsOf, receiveChange, receiveList, setListConnection, sortQueues, sparkMinutes,
  sparkline, toLocalClock,
} from "../../static/js/state/queueList.js";

const counts = (name, others = {}) => ({ name, ...NO_COUNTS, ...others });
const list = (...queues) => ({ queues, complete: true, unnamed: 0 });
const change = (queues, removed = []) => ({ ...list(...queues), removed });
const names = (state, options, now = 0) => sortQueues(state.queues, { sort: "trouble", filter: "", ...options }, now).map(({ name }) => name);

/**
 * Return the problems of the queue "a" after these counts, ten seconds apart; ten seconds have passed since the last.
 */
function after(...steps) {
  const states = steps.map((step, i) => [typeof step === "number" ? { count: step } : step, i * 10_000]);
  let state = initialList();
  for (const [others, time] of states) state = receiveChange(state, change([counts("a", others)]), time);
  return problemsOf(state.queues.get("a"), states.length * 10_000);
}

test("a change replaces the queues that it names and no others", () => {
  let state = receiveList(initialList(), list(counts("a", { count: 1 }), counts("b")), 0);
  state = receiveChange(state, change([counts("a", { count: 2 }), counts("c")], ["b"]), 1000);
  assert.deepEqual([...state.queues.values()].map(({ name, count, emptySince }) => [name, count, emptySince]), [["a", 2, null], ["b", 0, 1000], ["c", 0, null]]);
  state = receiveList(state, list(counts("c")), 2000);
  assert.deepEqual([...state.queues.values()].map(({ emptySince }) => emptySince), [2000, 1000, null]);
  assert.deepEqual(mergeChange(list(counts("a"), counts("b")), change([counts("c"), counts("a", { count: 3 })], ["b"])).queues.map(({ name, count }) => [name, count]), [["c", 0], ["a", 3]]);
});

test("after an interruption, the samples start anew", () => {
  let state = receiveList(initialList(), list(counts("a", { count: 1 })), 0);
  state = setListConnection(setListConnection(state, "away", { code: "offline" }), "live");
  assert.equal(state.error, null);
  state = receiveList(state, list(counts("b", { count: 1 })), 600_000);
  assert.deepEqual([...state.queues.keys()], ["b"]);
  assert.equal(state.since, 600_000);
  state = receiveList(state, list(counts("c")), 700_000); // the list again, without an interruption
  assert.deepEqual([[...state.queues.keys()], state.since], [["b", "c"], 600_000]);
});

test("an empty queue is shown for a minute", () => {
  let state = receiveChange(receiveList(initialList(), list(counts("a", { count: 1 })), 0), change([], ["a"]), 1000);
  assert.equal(dropEmpty(state, 61_000), state);
  assert.equal(dropEmpty(state, 61_001).queues.size, 0);
  state = receiveChange(state, change([counts("a", { count: 1 })]), 2000);
  assert.equal(dropEmpty(state, 90_000).queues.size, 1);
});

test("a queue is growing while its depth increases without consumers", () => {
  assert.deepEqual(after(1, 2), ["growing"]);
  assert.deepEqual(after(5, 9, 9, 12), ["growing"]);
  assert.deepEqual(after(5), []); // one count does not show growth
  assert.deepEqual(after(5, 5), []);
  assert.deepEqual(after(1, 5, 4), []); // a message was consumed
  assert.deepEqual(after(1, { count: 5, waiters: 1 }), []);
  assert.deepEqual(after(1, { count: 5, reserved: 1 }), []);
  assert.deepEqual(after(1, { count: 5, paused: true }), []); // growth is expected
  assert.deepEqual(after(1, 5, ...Array(12).fill(5)), []); // it has stopped growing
  assert.deepEqual(after(1, { count: 5, dead: 1 }), ["dead", "growing"]);
});

test("the server's history of the last minutes is shown at once", () => {
  const history = { at: 1000, step: 10, count: [null, 2, 2, 5], out: [null, 0, 0, 0] };
  let state = receiveList(initialList(), list(counts("a", { count: 5, history }), counts("b")), 1_050_000);
  assert.deepEqual(state.queues.get("a").samples, [{ time: 1_020_000, count: 2 }, { time: 1_040_000, count: 5 }]);
  assert.equal(state.since, 1_020_000);
  assert.deepEqual(problemsOf(state.queues.get("a"), 1_050_000), ["growing"]);
  const consumed = { ...history, out: [null, 0, 0, 3] };
  state = receiveList(initialList(), list(counts("a", { count: 5, history: consumed })), 1_050_000);
  assert.deepEqual(problemsOf(state.queues.get("a"), 1_050_000), []);
  assert.equal(toLocalClock(list({ history }, {}), 5000).queues[0].history.at, 995);
});

test("a message that has just arrived is not a problem", () => {
  const state = receiveChange(receiveList(initialList(), list(counts("a")), 0), change([counts("a", { count: 1 })]), 1000);
  assert.deepEqual(problemsOf(state.queues.get("a"), 10_999), []);
  assert.deepEqual(problemsOf(state.queues.get("a"), 11_000), ["growing"]);
});

test("queues with problems come first, then paused ones, and empty ones last", () => {
  const all = [counts("a"), counts("gone"), counts("b", { count: 9 }), counts("p", { paused: true }), counts("z", { dead: 1 })];
  let state = receiveList(initialList(), list(...all), 0);
  state = receiveChange(state, change([], ["gone"]), 0);
  assert.deepEqual(names(state), ["z", "p", "a", "b", "gone"]);
  assert.deepEqual(names(state, { sort: "count" }), ["b", "a", "gone", "p", "z"]);
  assert.deepEqual(names(state, { sort: "name" }), ["a", "b", "gone", "p", "z"]);
  assert.deepEqual(names(state, { filter: "ON" }), ["gone"]);
});

test("a line shows the samples, as high as the greatest of them", () => {
  const state = receiveList(initialList(), list(counts("a", { count: 2 })), 0);
  const { samples } = receiveChange(state, change([counts("a", { count: 4 })]), 30_000).queues.get("a");
  assert.equal(sparkMinutes(state, 60_000), 1);
  assert.equal(sparkMinutes(state, 60_001), 2);
  assert.equal(sparkMinutes(state, 9e9), 10);
  assert.equal(sparkline(samples, 1, 60_000, 100, 10), "M0 5H50V0H100");
  assert.equal(sparkline(samples, 1, 90_001, 100, 10), "M0 0H100");
  assert.equal(sparkline([], 1, 0, 100, 10), "");
});

test("after a clock was set back, lines stay inside their boxes and empty queues are not kept for years", () => {
  let state = receiveList(initialList(), list(counts("a", { count: 2 }), counts("b")), 1e12);
  assert.equal(sparkline(state.queues.get("a").samples, 1, 5000, 100, 10), "M100 0H100");
  state = receiveChange(state, change([counts("a", { count: 4 })], ["b"]), 5000);
  assert.deepEqual(state.queues.get("a").samples, [{ time: 5000, count: 4 }]);
  state = receiveChange(state, change([], ["a"]), 1e12);
  assert.deepEqual([...dropEmpty(state, 70_000).queues.keys()], []);
});

test("a queue that changes all the time has one sample per step, and no more than the lines show", () => {
  let state = initialList();
  for (let time = 0; time < 3_600_000; time += 1000) state = receiveChange(state, change([counts("a", { count: time / 1000 })]), time);
  const { samples } = state.queues.get("a");
  assert.ok(samples.length > 55 && samples.length < 65, samples.length);
  assert.equal(samples.at(-1).count, 3599);
});

test("queues can be sorted by every count", () => {
  assert.deepEqual(SORTS, ["trouble", "name", ...COUNTS]);
  const queues = COUNTS.map((key, i) => counts(key, { [key]: i + 1 }));
  const state = receiveList(initialList(), list(...queues), 0);
  for (const key of COUNTS) assert.equal(names(state, { sort: key })[0], key);
});
