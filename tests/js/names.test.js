/** Queue names: valid names, dead-letter queues, and the addresses of their pages. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { deadOf, nameRule, pageUrl, parentOf } from "../../static/js/state/names.js";

test("names must match the server's pattern as a whole, and a URL must be able to hold them", () => {
  const isName = nameRule("[a-z.]{1,4}(?:[.]dead)?");
  assert.ok(["a", "ab.c", "abcd.dead"].every(isName));
  assert.ok(!["", " ", "a b", "A", "abcde", "a.deadly", ".", ".."].some(isName));
});

test("a dead-letter queue belongs to its queue", () => {
  assert.equal(parentOf("jobs.dead"), "jobs");
  assert.equal(parentOf("a.dead.dead"), "a.dead");
  assert.equal(parentOf(".dead"), null);
  assert.equal(parentOf("jobs"), null);
  assert.equal(deadOf("jobs"), "jobs.dead");
});

test("every queue has its own page", () => {
  const path = (name) => new URL(pageUrl(name)).pathname.split("/q/")[1];
  assert.deepEqual(["jobs", "a:b.c", "x.dead"].map(path), ["jobs", "a:b.c", "x.dead"]);
});
