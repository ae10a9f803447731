/** The curl commands of the page: exact, and quoted so that a real shell reads them as meant. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";
import { QueueClient } from "../../static/js/client.js";
import { curlCommands, quoted } from "../../static/js/curl.js";

const client = new QueueClient("jobs", { base: "http://queue.test/" });
const curl = curlCommands(client, false);

/** The words of a line as a shell sees them. */
const words = (line) =>
  execFileSync("sh", ["-c", `for word in ${line}; do printf '%s\\0' "$word"; done`], { env: { API_TOKEN: "secret" } })
    .toString().split("\0").slice(0, -1);

test("simple texts make simple lines", () => {
  assert.equal(curl.push("hello"), "curl -d message=hello http://queue.test/api/queue/jobs/push");
  assert.equal(curl.pop(), "curl -X POST http://queue.test/api/queue/jobs/pop");
  assert.equal(curl.pop({ wait: 30 }), "curl -X POST 'http://queue.test/api/queue/jobs/pop?wait=30'");
  assert.equal(curl.events(), "curl -N http://queue.test/api/queue/jobs/events");
});

test("no text escapes its quotes", () => {
  for (const text of ["it's", "$(date)", "`date`", "a\nb", "; rm -rf x", '"', "\\", "!!", "*", "-d", "@file", "é 👍", ""]) {
    assert.deepEqual(words(quoted(text)), [text]);
    if (text) assert.equal(words(curl.push(text)).includes(text) || words(curl.push(text)).includes(`message=${text}`), true, text);
  }
});

test("what a shell cannot carry goes as JSON", () => {
  assert.ok(words(curl.push("a\u0000b")).includes('{"message":"a\\u0000b"}'));
  assert.ok(words(curl.push({ base64: "/w==" })).includes('{"message":{"base64":"/w=="}}'));
});

test("a long message is named, not shown", () => {
  assert.ok(curl.push("x".repeat(5000)).includes("--data-binary @message.txt"));
  assert.ok(curl.remove(3, "x".repeat(5000)).length < 300);
  assert.ok(curl.push(Array.from({ length: 900 }, () => "line")).includes("each=line"));
});

test("a token stands as the name of a variable, never itself", () => {
  const line = curlCommands(client, true).pop();
  assert.ok(line.includes('"Authorization: Bearer $API_TOKEN"'));
  assert.ok(words(line).includes("Authorization: Bearer secret"));
});
