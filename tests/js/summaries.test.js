import assert from "node:assert/strict";
import test from "node:test";
import { rowTextOf, summaryOf } from "../../static/js/text/summaries.js";

const CELERY = { shape: "celery", text: 't.charge("a\nb")', facts: { id: "c0ce", tries: 2, due: 1796205600 } };

test("a row shows the summary of a message, or else its beginning, on one line", () => {
  assert.equal(rowTextOf({ preview: '{"body": "W1s', summary: CELERY }), 't.charge("a ↵ b")');
  assert.equal(rowTextOf({ preview: "a\nb" }), "a ↵ b");
});

test("the facts of a summary follow it, times in the page's language", () => {
  const text = summaryOf({ summary: CELERY }, "en");
  assert.match(text, /^t\.charge\("a ↵ b"\) · id c0ce · tries 2 · due .*2026/);
  assert.equal(summaryOf({}, "en"), "");
});
