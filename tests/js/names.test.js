/** Queue names: valid ones, those of dead letters, and the addresses of their pages. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { isName, pageUrl, parentOf } from "../../static/js/state/names.js";

test("names are checked as the app checks them, but for those that no URL can hold", () => {
  assert.ok(["a", "A-Z_0.9:x", "x".repeat(128)].every(isName));
  assert.ok(!["", " ", "a b", "a/b", "é", ".", "..", "x".repeat(129)].some(isName));
});

test("dead letters know the queue they come from", () => {
  assert.equal(parentOf("jobs.dead"), "jobs");
  assert.equal(parentOf("a.dead.dead"), "a.dead");
  assert.equal(parentOf(".dead"), null);
  assert.equal(parentOf("jobs"), null);
});

test("a queue's page has an address of its own", () => {
  const path = (name) => new URL(pageUrl(name)).pathname.split("/q/")[1];
  assert.deepEqual(["jobs", "a:b.c", "x.dead"].map(path), ["jobs", "a:b.c", "x.dead"]);
});
