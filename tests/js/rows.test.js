/** The visible part of a list, even if it is longer than a browser can lay out. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { scrollTo, visibleRows } from "../../static/js/state/rows.js";

test("a list draws the visible rows and a few around them", () => {
  const list = { count: 1000, row: 40, view: 400, scroll: 4000 };
  assert.deepEqual(visibleRows(list), { height: 40_000, first: 96, last: 114, top: 96 * 40 });
  assert.deepEqual(visibleRows({ ...list, count: 0, scroll: 0 }), { height: 0, first: 0, last: 0, top: 0 });
});

test("a list longer than an element can be scrolls to its last row and skips none", () => {
  const list = { count: 1_000_000, row: 44, view: 600 };
  const { height } = visibleRows({ ...list, scroll: 0 });
  assert.ok(height <= 16_000_000);
  assert.equal(visibleRows({ ...list, scroll: height - 600 }).last, 1_000_000);
  let reached = 0;
  for (let scroll = 0; scroll <= height - 600; scroll += 100) {
    const { first, last } = visibleRows({ ...list, scroll });
    assert.ok(first <= reached, `row ${reached} is skipped at ${scroll}`);
    reached = last;
  }
});

test("the list scrolls to a row only if it is not visible", () => {
  for (const count of [1000, 1_000_000]) {
    const list = { count, row: 44, view: 440 };
    for (const place of [0, 3, 500, 777, count - 1]) {
      const scroll = scrollTo(place, { ...list, scroll: 300 });
      const { first, top } = visibleRows({ ...list, scroll });
      const y = top + (place - first) * 44 - scroll;
      assert.ok(y >= -0.01 && y + 44 <= 440.01, `row ${place} of ${count} at ${y}`);
    }
    if (count === 1000) assert.equal(scrollTo(10, { ...list, scroll: 300 }), 300);
  }
  assert.equal(scrollTo(3, { count: 5, row: 44, view: 440, scroll: 0 }), 0);
});
