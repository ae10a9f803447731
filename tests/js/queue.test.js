/** The page's state: every change makes a new one, and subscribers learn of it. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { connected, createStore, discarded, ended, extended, initial, labelOf, paused, received, recalled, took } from "../../static/js/state/queue.js";

test("a state that comes in replaces the numbers and is drawn", () => {
  let state = connected(initial("jobs"), "live");
  state = received(state, { count: 3, reserved: 1, dead: 2, waiters: 4, next: [{ preview: "a", bytes: 1 }] }, 1000);
  assert.deepEqual([state.count, state.reserved, state.dead, state.waiters, state.known], [3, 1, 2, 4, true]);
  assert.deepEqual(state.samples, [{ time: 1000, count: 3 }]);
  assert.equal(received(state, { count: 3 }, 2000).version, 2);
});

test("the app's history comes before what is seen, and fills the time in which the page did not follow", () => {
  const history = { at: 0, step: 10, max: [6, 2], count: [6, 2], in: [6, 0], out: [0, 4] };
  let state = received(initial("jobs"), { count: 1, history }, 25_000);
  assert.deepEqual(state.samples.map(({ count }) => count), [6, 2, 1]);
  assert.deepEqual(state.steps.map(({ in: came, out }) => [came, out]), [[0.6, 0], [0, 0.4]]);
  state = connected(state, "away", undefined, 30_000);
  state = connected(state, "connecting", undefined, 31_000);
  assert.deepEqual(state.samples.at(-1), { time: 30_000, count: null });
  state = received(connected(state, "live"), { count: 5, history: { ...history, at: 30, max: [9, 5], count: [9, 5] } }, 51_000);
  assert.deepEqual(state.samples.map(({ count }) => count), [6, 2, 1, null, 9, 5]);
  assert.equal(received(state, { count: 5 }, 52_000).steps, state.steps);
});

test("what is delayed is counted, and a pause is known", () => {
  const state = received(initial("jobs"), { count: 0, delayed: 2, paused: true }, 0);
  assert.deepEqual([state.delayed, state.paused], [2, true]);
  assert.equal(paused(state, false).paused, false);
  assert.equal(received(state, { count: 0 }, 0).paused, false);
});

test("a reservation that ended takes its message off the page, and no other", () => {
  const state = took(initial("jobs"), [{ how: "pop", message: "a" }, { how: "reserve", message: "b", reservation: "r1" }]);
  assert.deepEqual(ended(state, "r1").taken.map(({ message }) => message), ["a"]);
  assert.equal(ended(state, "other").taken.length, 2);
});

test("a state is never changed in place", () => {
  const state = Object.freeze(initial("jobs"));
  received(state, { count: 1 }, 0);
  took(state, [{ how: "pop", message: "a" }]);
  assert.equal(state.count, 0);
});

test("the error is kept while there is one", () => {
  const away = connected(initial("jobs"), "fault", { code: "redis_unavailable" });
  assert.equal(away.error.code, "redis_unavailable");
  assert.equal(connected(away, "live").error, null);
});

test("a fault is told apart: Redis is away, Redis refuses, the app refuses", () => {
  const label = (connection, code) => labelOf(connected(initial("jobs"), connection, { code }));
  assert.equal(label("live"), "live");
  assert.equal(label("fault", "redis_unavailable"), "fault");
  assert.equal(label("fault", "wrong_type"), "trouble");
  assert.equal(label("fault", "redis_misconfigured"), "trouble");
  assert.equal(label("fault", "too_many_blocked_clients"), "away");
});

test("taken messages stand with the newest on top, and go by their id", () => {
  let state = took(initial("jobs"), [{ how: "pop", message: "a" }, { how: "pop", message: "b" }]);
  state = took(state, [{ how: "reserve", message: "c", reservation: "r1", until: 1 }]);
  assert.deepEqual(state.taken.map(({ message }) => message), ["c", "b", "a"]);
  const [, b] = state.taken;
  state = extended(discarded(state, b.id), "r1", 9);
  assert.deepEqual(state.taken.map(({ message, until }) => [message, until]), [["c", 9], ["a", undefined]]);
  assert.deepEqual(recalled(state, b).taken.map(({ message }) => message), ["c", "b", "a"]);
});

test("subscribers are called once after several changes, with the last state", async () => {
  const store = createStore(initial("jobs"));
  const seen = [];
  store.subscribe((state) => seen.push(state.count));
  store.change(received, { count: 1 }, 0);
  store.change(received, { count: 2 }, 0);
  assert.equal(store.state.count, 2);
  assert.deepEqual(seen, []);
  await Promise.resolve();
  assert.deepEqual(seen, [2]);
  store.change(received, { count: 3 }, 0);
  await Promise.resolve();
  assert.deepEqual(seen, [2, 3]);
});
