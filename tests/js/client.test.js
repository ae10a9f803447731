/** The client of the API: requests, failures, uploads in slices, and event streams. All tests replace `fetch`. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { APP_URL } from "../../static/js/address.js";
import { QueueClient, QueueError } from "../../static/js/client.js";
import { parseEvents } from "../../static/js/client/events.js";
import { nextLines } from "../../static/js/client/lines.js";
import { BASE, clientOf } from "./clientOf.js";

test("push sends the message as JSON, and an Idempotency-Key if there is one", async () => {
  const { client, asked } = clientOf({ success: true, message: "hi", count: 1 });
  assert.deepEqual(await client.push("hi", { front: true, key: "k1" }), { success: true, message: "hi", count: 1 });
  assert.equal(asked[0].url, "/api/queue/jobs/push?front=1");
  assert.equal(asked[0].body, '{"message":"hi"}');
  assert.equal(asked[0].headers["Idempotency-Key"], "k1");
});

test("several messages are pushed in one request", async () => {
  const { client, asked } = clientOf({ success: true, pushed: 2, count: 2 });
  await client.push(["a", { base64: "/w==" }]);
  assert.equal(asked[0].body, '{"messages":["a",{"base64":"/w=="}]}');
});

test("pop returns the message, null if there is none, and a list with max", async () => {
  const empty = { success: false, error: "empty", message: "The queue is empty." };
  const { client } = clientOf({ success: true, message: "a" }, empty, { success: true, messages: ["b"] }, { ...empty, messages: [] });
  assert.equal(await client.pop(), "a");
  assert.equal(await client.pop({ wait: 1 }), null);
  assert.deepEqual(await client.pop({ max: 2 }), ["b"]);
  assert.deepEqual(await client.pop({ max: 2 }), []);
});

test("every operation has its own path", async () => {
  const ok = { success: true, messages: [], id: "1" };
  const { client, asked } = clientOf(...Array.from({ length: 18 }, () => ok));
  await client.count();
  await client.all({ offset: 5, limit: 2, preview: 80 });
  await client.reserve({ lease: 9 });
  await client.ack("7");
  await client.ack(["7", "8"]);
  await client.release("7");
  await client.extend("7", 60);
  await client.extend(["7", "8"], 60);
  await client.remove(3, "x", { undo: true });
  await client.remove({ contains: "x" });
  await client.remove({ messages: [{ position: 3, message: "x" }] });
  await client.clear();
  await client.restore("u");
  await client.move("other", { max: 5 });
  await client.move("other", { position: 0, message: "x" });
  await client.queues();
  assert.deepEqual(
    asked.map(({ method, url, body }) => [method, url, body ?? ""].join(" ").trim()),
    [
      "GET /api/queue/jobs/count",
      "GET /api/queue/jobs/all?offset=5&limit=2&preview=80",
      "POST /api/queue/jobs/reserve?lease=9",
      'POST /api/queue/jobs/ack {"id":"7"}',
      'POST /api/queue/jobs/ack {"ids":["7","8"]}',
      'POST /api/queue/jobs/release {"id":"7"}',
      'POST /api/queue/jobs/extend {"id":"7","lease":60}',
      'POST /api/queue/jobs/extend {"ids":["7","8"],"lease":60}',
      'POST /api/queue/jobs/remove {"position":3,"message":"x","undo":true}',
      'POST /api/queue/jobs/remove {"contains":"x"}',
      'POST /api/queue/jobs/remove {"messages":[{"position":3,"message":"x"}]}',
      "POST /api/queue/jobs/clear",
      'POST /api/queue/jobs/restore {"undo":"u"}',
      'POST /api/queue/jobs/move {"to":"other","max":5}',
      'POST /api/queue/jobs/move {"to":"other","position":0,"message":"x"}',
      "GET /api/queues",
    ],
  );
});

test("a client without an address calls the app that serves it; one of another queue is of the same class", async () => {
  assert.equal(new QueueClient("jobs").url("count").href, new URL("api/queue/jobs/count", APP_URL).href);
  class Logging extends QueueClient {}
  const other = new Logging("jobs", { base: BASE, token: "secret" }).of("other");
  assert.ok(other instanceof Logging);
  assert.equal(other.url("count").href, `${BASE}api/queue/other/count`);
});

test("several queues are named in one path, and a reservation has its queue", async () => {
  const reservation = { id: "7", message: "a", deliveries: 1, deadline: 5 };
  const { client, asked } = clientOf(
    { success: true, message: "a", queue: "urgent" },
    { success: true, ...reservation, queue: "urgent" },
    { success: true, messages: [reservation], queue: "low" },
    { success: false, error: "empty", message: "Empty.", messages: [] },
    { success: true, messages: [reservation] },
    { success: true, consumers: [], complete: true },
  );
  const several = client.of(["urgent", "low"]);
  assert.equal(await several.pop({ by: "w1" }), "a");
  assert.deepEqual(await several.reserve({ lease: 9, by: "w1" }), { ...reservation, queue: "urgent" });
  assert.deepEqual(await several.reserve({ max: 2 }), [{ ...reservation, queue: "low" }]);
  assert.deepEqual(await several.reserve({ max: 2 }), []);
  assert.deepEqual(await client.reserve({ max: 2 }), [reservation]);
  assert.deepEqual(await client.consumers(), { success: true, consumers: [], complete: true });
  assert.deepEqual(
    asked.map(({ url }) => url),
    [
      "/api/queue/urgent%2Clow/pop?by=w1",
      "/api/queue/urgent%2Clow/reserve?lease=9&by=w1",
      "/api/queue/urgent%2Clow/reserve?max=2",
      "/api/queue/urgent%2Clow/reserve?max=2",
      "/api/queue/jobs/reserve?max=2",
      "/api/queue/jobs/consumers",
    ],
  );
});

test("the operations for jobs: delay, retry, bury, lists, search, pause and results", async () => {
  const { client, asked } = clientOf(...Array.from({ length: 13 }, () => ({ success: true })));
  await client.push("later", { delay: 60 });
  await client.push(["now"], { delay: 0 });
  await client.release("7", { delay: 10, reason: "busy" });
  await client.release(["7", "8"], { dead: true });
  await client.ack("7", { job: "j", result: { base64: "/w==" } });
  await client.reserved({ offset: 1, limit: 2, preview: 3 });
  await client.delayed();
  await client.all({ contains: "a&b", details: true });
  await client.move("other", { contains: "x" });
  await client.pause();
  await client.resume();
  await client.setResult("j", "done", { keep: 9 });
  await client.result("j", { wait: 5 });
  assert.deepEqual(
    asked.map(({ method, url, body }) => [method, url.replace("/api/queue/jobs/", ""), body ?? ""].join(" ").trim()),
    [
      'POST push?delay=60 {"message":"later"}',
      'POST push {"messages":["now"]}',
      'POST release {"id":"7","delay":10,"reason":"busy"}',
      'POST release {"ids":["7","8"],"dead":true}',
      'POST ack {"id":"7","job":"j","result":{"base64":"/w=="}}',
      "GET reserved?offset=1&limit=2&preview=3",
      "GET delayed",
      "GET all?contains=a%26b&details=1",
      'POST move {"to":"other","contains":"x"}',
      "POST pause",
      "POST resume",
      'POST result {"job":"j","result":"done","keep":9}',
      "GET result?job=j&wait=5",
    ],
  );
});

test("reasons are counted, and messages found and moved by their reason, with undo", async () => {
  const { client, asked } = clientOf({ success: true, reasons: [{ reason: "r #", count: 2 }], complete: true }, { success: true, messages: [] }, { success: true, moved: 2, undo: "u:other" }, { success: true, restored: 2 }, "", { success: true, removed: 2 });
  assert.deepEqual((await client.reasons()).reasons, [{ reason: "r #", count: 2 }]);
  await client.all({ reason: "r #", details: true });
  const { undo } = await client.move("other", { reason: "r #" });
  await client.restore(undo);
  for await (const _ of client.find(undefined, { reason: "r #" }));
  await client.remove({ reason: "r #" });
  assert.deepEqual(
    asked.map(({ method, url, body }) => [method, url.replace("/api/queue/jobs/", ""), body ?? ""].join(" ").trim()),
    [
      "GET reasons",
      "GET all?reason=r+%23&details=1",
      'POST move {"to":"other","reason":"r #"}',
      'POST restore {"undo":"u:other"}',
      "GET all?reason=r+%23&preview=200",
      'POST remove {"reason":"r #"}',
    ],
  );
});

test("a batch is settled in one request, with results as messages", async () => {
  const { client, asked } = clientOf({ success: true, stale: [] }, { success: true, stale: ["9"] });
  await client.settle({ acks: ["1", { id: "2", job: "j", result: new Uint8Array([255]) }], releases: [{ id: "3", dead: true, job: "k" }] });
  assert.deepEqual((await client.settle({ extends: ["9"] })).stale, ["9"]);
  await assert.rejects(client.settle({ acks: ["1"] }, { signal: AbortSignal.abort() }), { code: "aborted" });
  assert.deepEqual(
    asked.map(({ url, body }) => `${url} ${body}`),
    [
      '/api/queue/jobs/settle {"acks":["1",{"id":"2","job":"j","result":{"base64":"/w=="}}],' +
        '"releases":[{"id":"3","dead":true,"job":"k"}],"extends":[]}',
      '/api/queue/jobs/settle {"acks":[],"releases":[],"extends":["9"]}',
    ],
  );
});

test("a reservation says after how many deliveries it is buried, and a result whether the job failed", async () => {
  const reservation = { id: "1", message: "a", deliveries: 1, max_deliveries: 5, deadline: 9 };
  const failure = { job: "j", failed: "why", at: 9 };
  const { client } = clientOf({ success: true, ...reservation }, { success: true, ...failure });
  assert.deepEqual(await client.reserve(), reservation);
  assert.deepEqual(await client.result("j"), failure);
});

test("a paused queue rejects, so that it is not mistaken for an empty one", async () => {
  const paused = { success: false, error: "paused", message: "The queue is paused." };
  const { client } = clientOf(paused, { ...paused, messages: [] }, paused);
  await assert.rejects(client.pop(), { code: "paused" });
  await assert.rejects(client.pop({ max: 2 }), { code: "paused" });
  await assert.rejects(client.reserve(), { code: "paused" });
});

test("a limited queue rejects, and says when to try again", async () => {
  const limited = { success: false, error: "limited", message: "The limits are reached.", retry_after: 0.5 };
  const { client } = clientOf(limited, { ...limited, messages: [] });
  for (const taken of [client.reserve(), client.pop({ max: 2 })]) {
    await assert.rejects(taken, (error) => error.code === "limited" && error.answer.retry_after === 0.5);
  }
});

test("the settings of a queue are read and changed", async () => {
  const settings = { at_once: 3, per_second: 0.5, max_deliveries: 0 };
  const { client, asked } = clientOf({ success: true, ...settings }, { success: true, ...settings });
  assert.deepEqual(await client.settings(), settings);
  assert.deepEqual(await client.setSettings({ at_once: 3, max_deliveries: 0 }), settings);
  assert.deepEqual(asked.map(({ method, url, body }) => [method, url, body]), [
    ["GET", "/api/queue/jobs/settings", undefined],
    ["POST", "/api/queue/jobs/settings", '{"at_once":3,"max_deliveries":0}'],
  ]);
});

test("a result that does not exist yet is null", async () => {
  const { client } = clientOf({ success: false, error: "no_result", message: "None." }, { success: true, job: "j", result: "r", at: 1 });
  assert.equal(await client.result("j"), null);
  assert.deepEqual(await client.result("j"), { job: "j", result: "r", at: 1 });
});

test("search results arrive as they are found, even if a chunk ends within a line or a character", async () => {
  const bytes = new TextEncoder().encode('{"position":4,"preview":"é","bytes":2}\n{"position":9,"preview":"b","bytes":1}\n');
  const stream = new ReadableStream({
    start(controller) {
      for (const byte of bytes) controller.enqueue(Uint8Array.of(byte));
      controller.close();
    },
  });
  let asked;
  const fetch = async (url, { headers }) => {
    asked = [url.search, headers.Accept];
    return new Response(stream);
  };
  const found = [];
  for await (const hit of new QueueClient("jobs", { base: BASE, fetch }).find("x", { limit: 5 })) found.push(hit);
  assert.deepEqual(found, [{ position: 4, preview: "é", bytes: 2 }, { position: 9, preview: "b", bytes: 1 }]);
  assert.deepEqual(asked, ["?contains=x&limit=5&preview=200", "application/x-ndjson"]);
});

test("an export yields the bytes of NDJSON as they arrive", async () => {
  const { client, asked } = clientOf("a line");
  let bytes = 0;
  for await (const piece of client.of("other").exportLines({ contains: "x" })) bytes += piece.length;
  assert.equal(bytes, '"a line"'.length);
  assert.deepEqual([asked[0].url, asked[0].headers.Accept], ["/api/queue/other/all?contains=x", "application/x-ndjson"]);
});

test("a search that breaks off or is refused rejects", async () => {
  const search = async (response) => {
    for await (const _ of new QueueClient("jobs", { base: BASE, fetch: async () => response }).find("x"));
  };
  const broken = new ReadableStream({ pull: (controller) => controller.error(new TypeError("network error")) });
  await assert.rejects(search(new Response(broken)), { code: "offline" });
  const refusal = { success: false, error: "redis_unavailable", message: "Away." };
  await assert.rejects(search(new Response(JSON.stringify(refusal), { status: 503 })), { code: "redis_unavailable" });
});

test("the default queue has no name in its path, and requests have the token", async () => {
  let seen;
  const fetch = async (url, { headers }) => {
    seen = [url.href, headers.Authorization];
    return new Response('{"success":true}');
  };
  await new QueueClient(null, { base: BASE, fetch, token: "secret" }).count();
  assert.deepEqual(seen, ["http://queue.test/api/queue/count", "Bearer secret"]);
});

test("a name that a URL would drop does not reach another queue", async () => {
  assert.throws(() => new QueueClient(".", { base: BASE }).url("push"), { code: "bad_name" });
  assert.throws(() => new QueueClient("..", { base: BASE }).url("push"), { code: "bad_name" });
  await assert.rejects(new QueueClient(".", { base: BASE }).clear(), { code: "bad_name" });
  assert.equal(new QueueClient("a:b.c", { base: BASE }).url("pop").href, "http://queue.test/api/queue/a:b.c/pop");
});

test("an error rejects with its code, message and status", async () => {
  const { client } = clientOf({ status: 409, body: { success: false, error: "stale", message: "Gone.", stale: ["7"] } });
  await assert.rejects(client.ack("7"), (error) => {
    assert.ok(error instanceof QueueError);
    assert.deepEqual([error.code, error.message, error.status, error.answer.stale], ["stale", "Gone.", 409, ["7"]]);
    return true;
  });
});

test("no response, and a response from something else, have their own codes", async () => {
  const { client } = clientOf(new TypeError("failed to fetch"));
  await assert.rejects(client.clear(), { code: "offline", status: 0 });
  const odd = new QueueClient("jobs", { base: BASE, fetch: async () => new Response("<h1>Bad gateway</h1>", { status: 502 }) });
  await assert.rejects(odd.clear(), { code: "no_json", status: 502 });
});

test("slices end at the end of a line and lose no byte", async () => {
  const text = "one\ntwo\r\n\nthree is long\nfour";
  const blob = new Blob([text]);
  const slices = [];
  for (let at = 0; at < blob.size; at += slices.at(-1).length) slices.push(await nextLines(blob, at, 6));
  const texts = slices.map((slice) => new TextDecoder().decode(slice));
  assert.equal(texts.join(""), text);
  assert.ok(texts.slice(0, -1).every((one) => one.endsWith("\n")), JSON.stringify(texts));
});

test("pushing lines reports its progress and stops between two slices", async () => {
  const size = 1 << 20;
  const blob = new Blob(["x".repeat(size - 1), "\n", "y".repeat(size - 1), "\n", "last"]);
  const { client, asked } = clientOf({ success: true, pushed: 1, count: 1 }, { success: true, pushed: 1, count: 2 });
  const stop = new AbortController();
  const seen = [];
  const progress = (done) => {
    seen.push(done);
    if (done.pushed === 2) stop.abort();
  };
  const done = await client.pushLines(blob, { progress, signal: stop.signal });
  assert.deepEqual(done, { pushed: 2, bytes: 2 * size, size: 2 * size + 4 });
  assert.equal(seen.length, 2);
  assert.equal(asked[0].url, "/api/queue/jobs/push?each=line");
});

test("an upload that fails half way reports how many messages were pushed", async () => {
  const line = "x".repeat((1 << 20) - 1);
  const refusal = { status: 400, body: { success: false, error: "bad_utf8", message: "No.", pushed: 3 } };
  const { client } = clientOf({ success: true, pushed: 1, count: 1 }, refusal);
  await assert.rejects(client.pushLines(`${line}\n${line}\n`), (error) => error.code === "bad_utf8" && error.answer.pushed === 4);
});

test("an event can contain any character, even those that end a line in JavaScript", () => {
  const data = JSON.stringify({ preview: "a\u2028b\u2029c\u0085d" });
  assert.deepEqual(parseEvents(`event: queue\ndata: ${data}\n\n`).events, [{ event: "queue", data }]);
});

test("events are complete wherever the stream is cut into chunks", () => {
  const text = 'retry: 1000\n\nevent: queue\ndata: {"count":1}\n\n: nothing new\n\nevent: fault\ndata: {"error":"redis_unavailable"}\n\n';
  const events = [];
  let rest = "";
  for (const character of text) {
    const found = parseEvents(rest + character);
    rest = found.rest;
    events.push(...found.events);
  }
  assert.equal(rest, "");
  assert.deepEqual(events, [
    { event: "queue", data: '{"count":1}' },
    { event: "fault", data: '{"error":"redis_unavailable"}' },
  ]);
});

/** Return the response of a stream that sends these texts and then ends. */
const streamOf = (...texts) =>
  new Response(new ReadableStream({
    start(controller) {
      for (const text of texts) controller.enqueue(new TextEncoder().encode(text));
      controller.close();
    },
  }));

test("a stream that ends is opened again, and the state of the connection is reported", async () => {
  const answers = [
    streamOf('event: queue\ndata: {"count":1}\n\n'),
    new TypeError("refused"),
    streamOf('event: fault\ndata: {"error":"redis_unavailable","message":"Away."}\n\nevent: queue\ndata: {"count":2}\n\n'),
    new Response('{"success":false,"error":"token_required","message":"No."}', { status: 401 }),
  ];
  const fetch = async () => {
    const answer = answers.shift();
    if (answer instanceof Error) throw answer;
    return answer;
  };
  const client = new QueueClient("jobs", { base: BASE, fetch });
  const reported = [];
  await new Promise((done) => {
    client.events({
      queue: ({ count }) => reported.push(count),
      connection: (now, error) => {
        reported.push(error ? `${now} ${error.code}` : now);
        if (now === "refused") done();
      },
    });
  });
  assert.deepEqual(reported, ["connecting", "live", 1, "away", "away offline", "fault redis_unavailable", "live", 2, "away", "refused token_required"]);
});

test("the stream of all queues has its own path, and sends a list and then changes", async () => {
  const texts = ['event: queues\ndata: {"queues":[{"name":"a"}]}\n\n', ': nothing new\n\nevent: changed\ndata: {"queues":[],"removed":["a"]}\n\n'];
  let asked = "";
  const fetch = async (url) => {
    asked = url.href;
    return streamOf(...texts);
  };
  const reported = [];
  await new Promise((done) => {
    const stop = new QueueClient(null, { base: BASE, fetch }).allEvents({
      queues: ({ queues }) => reported.push(queues.length),
      changed: ({ removed }) => done(stop(reported.push(...removed))),
    });
  });
  assert.equal(asked, `${BASE}api/events?history=1`);
  assert.deepEqual(reported, [1, "a"]);
});

test("a state includes the first messages even if its event omits them", async () => {
  const asked = [];
  const fetch = async (url) => {
    asked.push(url.search);
    return streamOf('event: queue\ndata: {"count":1,"next":["a"]}\n\nevent: queue\ndata: {"count":2}\n\nevent: queue\ndata: {"count":0,"next":[]}\n\n');
  };
  const states = [];
  await new Promise((done) => {
    const queue = (state) => states.push(state) === 3 && (stop(), done());
    const stop = new QueueClient("jobs", { base: BASE, fetch }).events({ queue }, { next: 0, history: true });
  });
  assert.deepEqual(states.map(({ count, next }) => [count, next]), [[1, ["a"]], [2, ["a"]], [0, []]]);
  assert.deepEqual(asked, ["?next=0&history=1"]);
});

test("a stopped stream sends no more requests", async () => {
  let asked = 0;
  const fetch = async (url, { signal }) => {
    asked += 1;
    await new Promise((resolve, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
  };
  const reported = [];
  const stop = new QueueClient("jobs", { base: BASE, fetch }).events({ connection: (now) => reported.push(now) });
  stop();
  await new Promise(setImmediate);
  assert.equal(asked, 1);
  assert.deepEqual(reported, ["connecting"]);
});

test("a file that can no longer be read rejects with a code and the number of messages pushed before", async () => {
  const gone = new Blob(["x\n"]);
  gone.slice = () => ({ arrayBuffer: () => Promise.reject(new DOMException("It is gone.", "NotReadableError")) });
  gone.arrayBuffer = gone.slice().arrayBuffer;
  const { client, asked } = clientOf();
  await assert.rejects(client.pushLines(gone), (error) => {
    assert.ok(error instanceof QueueError);
    assert.deepEqual([error.code, error.message, error.answer.pushed], ["file", "It is gone.", 0]);
    return true;
  });
  await assert.rejects(client.pushBytes(gone), { code: "file" });
  assert.deepEqual(asked, []);
});

test("adding details makes a new error and leaves the old one unchanged", () => {
  const error = new QueueError("stale", "Gone.", 409, { stale: ["7"] });
  const detailed = error.withDetails({ pushed: 2 });
  assert.deepEqual([detailed.code, detailed.message, detailed.status], ["stale", "Gone.", 409]);
  assert.deepEqual(detailed.answer, { stale: ["7"], pushed: 2 });
  assert.deepEqual(error.answer, { stale: ["7"] });
});
