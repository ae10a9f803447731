/** The recently popped messages: limited in number, age and size, and dropped once they are back in the queue. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { createRecent } from "../../static/js/state/recent.js";

/** Return a browser's storage with room for this many characters. */
function storageOf(room = Infinity) {
  const kept = new Map();
  return {
    getItem: (key) => kept.get(key) ?? null,
    setItem(key, value) {
      if (value.length > room) throw new DOMException("", "QuotaExceededError");
      kept.set(key, value);
    },
  };
}
const taken = (...messages) => messages.map((message) => ({ message, key: `key ${message}` }));
const messages = (recent, now) => recent.list(now).map(({ message }) => message);

test("the newest come first, and a message that was put back is dropped", () => {
  const recent = createRecent("jobs", storageOf());
  recent.add(taken("a", "b"));
  recent.add(taken("c"));
  assert.deepEqual(messages(recent), ["c", "b", "a"]);
  recent.drop("key b");
  assert.deepEqual(messages(recent), ["c", "a"]);
});

test("a hundred messages are kept for a day", () => {
  const recent = createRecent("jobs", storageOf());
  recent.add(taken("old"), 0);
  assert.deepEqual(messages(recent, 86_399_999), ["old"]);
  assert.deepEqual(messages(recent, 86_400_001), []);
  const many = Array.from({ length: 150 }, (_, i) => `m${i}`);
  recent.add(taken(...many), 1000);
  assert.deepEqual([recent.list(1000).length, messages(recent, 1000)[0], messages(recent, 1000).at(-1)], [100, "m149", "m50"]);
});

test("a message that is too large is left out, and no other", () => {
  const recent = createRecent("jobs", storageOf());
  recent.add(taken("old", "x".repeat(1 << 21), "new"));
  assert.deepEqual(messages(recent), ["new", "old"]);
});

test("with little room the newest are kept, queues do not mix, and a forbidden storage keeps nothing", () => {
  const storage = storageOf(300);
  const recent = createRecent("jobs", storage);
  recent.add(taken(...Array.from({ length: 8 }, (_, i) => `message ${i}`)));
  assert.equal(messages(recent)[0], "message 7");
  assert.ok(recent.list().length < 8);
  assert.deepEqual(createRecent("other", storage).list(), []);
  const none = createRecent("jobs", undefined);
  none.add(taken("a"));
  assert.deepEqual(none.list(), []);
});
