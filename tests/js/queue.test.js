/**
 * The state of a queue's page, and the messages in hand: every change makes a new state, of which subscribers are
 * notified.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { addInHand, dropFromHand, endReservation, extendReservation, restoreInHand } from "../../static/js/state/inHand.js";
import { initialQueue, labelOf, receiveState, setConnection, setPaused } from "../../static/js/state/queue.js";
import { createStore } from "../../static/js/state/store.js";

test("a received state replaces the counts and adds a sample", () => {
  let state = setConnection(initialQueue("jobs"), "live");
  state = receiveState(state, { count: 3, reserved: 1, dead: 2, waiters: 4, next: [{ preview: "a", bytes: 1 }] }, 1000);
  assert.deepEqual([state.count, state.reserved, state.dead, state.waiters, state.known], [3, 1, 2, 4, true]);
  assert.deepEqual(state.samples, [{ time: 1000, count: 3 }]);
  assert.equal(receiveState(state, { count: 3 }, 2000).version, 2);
});

test("the server's history comes first, and fills the time in which the page did not follow", () => {
  const history = { at: 0, step: 10, max: [6, 2], count: [6, 2], in: [6, 0], out: [0, 4] };
  let state = receiveState(initialQueue("jobs"), { count: 1, history }, 25_000);
  assert.deepEqual(state.samples.map(({ count }) => count), [6, 2, 1]);
  assert.deepEqual(state.steps.map(({ in: arrivals, out }) => [arrivals, out]), [[0.6, 0], [0, 0.4]]);
  state = setConnection(state, "away", undefined, 30_000);
  state = setConnection(state, "connecting", undefined, 31_000);
  assert.deepEqual(state.samples.at(-1), { time: 30_000, count: null });
  state = receiveState(setConnection(state, "live"), { count: 5, history: { ...history, at: 30, max: [9, 5], count: [9, 5] } }, 51_000);
  assert.deepEqual(state.samples.map(({ count }) => count), [6, 2, 1, null, 9, 5]);
  assert.equal(receiveState(state, { count: 5 }, 52_000).steps, state.steps);
});

test("a state has the number of delayed messages and whether the queue is paused", () => {
  const state = receiveState(initialQueue("jobs"), { count: 0, delayed: 2, paused: true }, 0);
  assert.deepEqual([state.delayed, state.paused], [2, true]);
  assert.equal(setPaused(state, false).paused, false);
  assert.equal(receiveState(state, { count: 0 }, 0).paused, false);
});

test("a reservation that ends takes its message out of hand, and no other", () => {
  const state = addInHand(initialQueue("jobs"), [{ how: "pop", message: "a" }, { how: "reserve", message: "b", reservation: "r1" }]);
  assert.deepEqual(endReservation(state, "r1").inHand.map(({ message }) => message), ["a"]);
  assert.equal(endReservation(state, "other").inHand.length, 2);
});

test("a state is never changed in place", () => {
  const state = Object.freeze(initialQueue("jobs"));
  receiveState(state, { count: 1 }, 0);
  addInHand(state, [{ how: "pop", message: "a" }]);
  assert.equal(state.count, 0);
});

test("the error is kept until the connection is live", () => {
  const away = setConnection(initialQueue("jobs"), "fault", { code: "redis_unavailable" });
  assert.equal(away.error.code, "redis_unavailable");
  assert.equal(setConnection(away, "live").error, null);
});

test("a fault is labeled by its cause: Redis is unavailable, Redis fails, or the server fails", () => {
  const label = (connection, code) => labelOf(setConnection(initialQueue("jobs"), connection, { code }));
  assert.equal(label("live"), "live");
  assert.equal(label("fault", "redis_unavailable"), "fault");
  assert.equal(label("fault", "wrong_type"), "trouble");
  assert.equal(label("fault", "redis_misconfigured"), "trouble");
  assert.equal(label("fault", "too_many_blocked_clients"), "away");
});

test("the messages in hand have the newest first, and are dropped by their ids", () => {
  let state = addInHand(initialQueue("jobs"), [{ how: "pop", message: "a" }, { how: "pop", message: "b" }]);
  state = addInHand(state, [{ how: "reserve", message: "c", reservation: "r1", until: 1 }]);
  assert.deepEqual(state.inHand.map(({ message }) => message), ["c", "b", "a"]);
  const [, b] = state.inHand;
  state = extendReservation(dropFromHand(state, b.id), "r1", 9);
  assert.deepEqual(state.inHand.map(({ message, until }) => [message, until]), [["c", 9], ["a", undefined]]);
  assert.deepEqual(restoreInHand(state, b).inHand.map(({ message }) => message), ["c", "b", "a"]);
});

test("subscribers are notified once after several changes, with the last state", async () => {
  const store = createStore(initialQueue("jobs"));
  const seen = [];
  store.subscribe((state) => seen.push(state.count));
  store.change(receiveState, { count: 1 }, 0);
  store.change(receiveState, { count: 2 }, 0);
  assert.equal(store.state.count, 2);
  assert.deepEqual(seen, []);
  await Promise.resolve();
  assert.deepEqual(seen, [2]);
  store.change(receiveState, { count: 3 }, 0);
  await Promise.resolve();
  assert.deepEqual(seen, [2, 3]);
});
