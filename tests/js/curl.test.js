/** The curl commands of the page: exact, and quoted so that a real shell reads them as intended. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";
import { QueueClient } from "../../static/js/client.js";
import { curlCommands, quoted } from "../../static/js/text/curl.js";

const client = new QueueClient("jobs", { base: "http://queue.test/" });
const curl = curlCommands(client, false);

/** Return the words of a line as a shell reads them. */
const words = (line) =>
  execFileSync("sh", ["-c", `for word in ${line}; do printf '%s\\0' "$word"; done`], { env: { API_TOKEN: "secret" } })
    .toString().split("\0").slice(0, -1);

test("simple texts make simple commands", () => {
  assert.equal(curl.push("hello"), "curl --data-urlencode message=hello http://queue.test/api/queue/jobs/push");
  assert.equal(curl.pop(), "curl -X POST http://queue.test/api/queue/jobs/pop");
  assert.equal(curl.pop({ wait: 30 }), "curl -X POST 'http://queue.test/api/queue/jobs/pop?wait=30'");
  assert.equal(curl.events(), "curl -N http://queue.test/api/queue/jobs/events");
});

test("every operation for jobs has its command", () => {
  const at = "http://queue.test/api/queue/jobs/";
  assert.equal(curl.push("hello", { delay: 60 }), `curl --data-urlencode message=hello '${at}push?delay=60'`);
  assert.equal(curl.release("7", { delay: 10 }), `curl -d id=7 -d delay=10 ${at}release`);
  assert.deepEqual(words(curl.release("7", { dead: true, reason: "50 % & more" })), [
    "curl", "-d", "id=7", "-d", "dead=1", "--data-urlencode", "reason=50 % & more", `${at}release`,
  ]);
  assert.equal(curl.read(3), `curl '${at}all?offset=3&limit=1&details=1'`);
  assert.deepEqual(words(curl.find("it's", 9)).slice(-1), [`${at}all?contains=it%27s&limit=9&preview=200`]);
  assert.equal(curl.reserved(), `curl ${at}reserved`);
  assert.equal(curl.delayed(), `curl ${at}delayed`);
  assert.equal(curl.move("b", { max: 2, contains: "a+b" }), `curl -d to=b -d max=2 --data-urlencode contains=a+b ${at}move`);
  assert.equal(curl.pause(), `curl -X POST ${at}pause`);
  assert.equal(curl.resume(), `curl -X POST ${at}resume`);
  assert.equal(curl.result("j", { wait: 5 }), `curl '${at}result?job=j&wait=5'`);
  assert.ok(words(curl.setResult("j", "done", { keep: 9 })).includes('{"job":"j","result":"done","keep":9}'));
});

test("messages that go to the front or are delayed are never a stream of lines", () => {
  const many = Array.from({ length: 900 }, () => "line");
  assert.ok(curl.push(many, { delay: 9 }).includes("@messages.json") && curl.push(many, { delay: 9 }).includes("delay=9"));
  assert.ok(!curl.push(many, { front: true }).includes("each=line"));
});

test("no text breaks out of its quotes", () => {
  for (const text of ["it's", "$(date)", "`date`", "a\nb", "; rm -rf x", '"', "\\", "!!", "*", "-d", "@file", "é 👍", ""]) {
    assert.deepEqual(words(quoted(text)), [text]);
    if (text) assert.equal(words(curl.push(text)).includes(text) || words(curl.push(text)).includes(`message=${text}`), true, text);
  }
});

test("text that a shell cannot pass on is sent as JSON", () => {
  assert.ok(words(curl.push("a\u0000b")).includes('{"message":"a\\u0000b"}'));
  assert.ok(words(curl.push({ base64: "/w==" })).includes('{"message":{"base64":"/w=="}}'));
});

test("a long message is replaced by the name of a file", () => {
  assert.ok(curl.push("x".repeat(5000)).includes("--data-binary @message.txt"));
  assert.ok(curl.remove(3, "x".repeat(5000)).length < 300);
  assert.ok(curl.moveOne("other", 3, "x".repeat(5000)).length < 300);
  assert.ok(curl.push(Array.from({ length: 900 }, () => "line")).includes("each=line"));
});

test("the token is shown as the name of a variable, never itself", () => {
  const line = curlCommands(client, true).pop();
  assert.ok(line.includes('"Authorization: Bearer $API_TOKEN"'));
  assert.ok(words(line).includes("Authorization: Bearer secret"));
});
