/** The client in the hands of a hurried caller: odd values, addresses, signals and handlers. All tests replace `fetch`. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { QueueClient } from "../../static/js/client.js";
import { BASE, clientOf } from "./clientOf.js";

test("bytes are pushed as bytes, alone, in a list and as a result", async () => {
  const { client, asked } = clientOf(...Array.from({ length: 9 }, () => ({ success: true })));
  const bytes = Uint8Array.of(0, 97, 98, 0).subarray(1, 3);
  for (const one of [bytes, bytes.slice().buffer, new DataView(bytes.buffer, 1, 2), new Blob(["ab"])]) {
    await client.push(one, { delay: 1 });
    assert.deepEqual(asked.pop(), { method: "POST", url: "/api/queue/jobs/push?delay=1", headers: {}, body: "ab" });
  }
  await client.push([bytes, new Blob(["ab"]), "text"]);
  await client.push([new Uint8Array(100_000)]);
  await client.setResult("j", bytes);
  await client.ack("7", { job: "j", result: bytes });
  assert.equal(asked[0].body, '{"messages":[{"base64":"YWI="},{"base64":"YWI="},"text"]}');
  assert.deepEqual(Buffer.from(JSON.parse(asked[1].body).messages[0].base64, "base64"), Buffer.alloc(100_000));
  assert.equal(asked[2].body, '{"job":"j","result":{"base64":"YWI="}}');
  assert.equal(asked[3].body, '{"id":"7","job":"j","result":{"base64":"YWI="}}');
  await client.pushLines(bytes);
  assert.equal(asked[4].body, "ab");
});

test("a value that JSON would change is refused, wherever it is, and nothing is sent", async () => {
  const { client, asked } = clientOf();
  class Job {
    name = "job";
  }
  const circular = {};
  circular.self = circular;
  const changed = [undefined, NaN, -Infinity, 1n, () => {}, Symbol("s"), new Map(), new Set([1]), new Error("e"), /x/];
  changed.push(new Job(), new Date(NaN), Promise.resolve(), new URLSearchParams("a=1"), circular, { [Symbol("s")]: 1 });
  changed.push(new String("s"), { toJSON: () => undefined }, { toJSON: () => new Map() });
  for (const value of changed) {
    for (const message of [value, [value], { deep: [value] }, [{ deep: { value } }]]) {
      await assert.rejects(client.push(message), { name: "QueueError", code: "bad_message" });
    }
    await assert.rejects(client.setResult("j", value), { code: "bad_message" });
    await assert.rejects(client.ack("7", { job: "j", result: value }), { code: "bad_message" });
  }
  for (const part of [new Uint8Array(1), Buffer.from("a"), new Blob(["a"])]) {
    await assert.rejects(client.push({ part }), { code: "bad_message" }); // JSON has no bytes
  }
  for (const lines of [["a"], { a: 1 }, 7, null, undefined, new Map()]) {
    await assert.rejects(client.pushLines(lines), { code: "bad_message" });
    await assert.rejects(client.pushBytes(lines), { code: "bad_message" });
  }
  await assert.rejects(client.push([1, , 2]), { code: "bad_message" }); // oxlint-disable-line no-sparse-arrays
  await assert.rejects(client.push({ sizes: new Map() }), { message: /of class Map \(at "sizes"\)/ });
  assert.deepEqual(asked, []);
});

test("a value that JSON keeps is sent as it is", async () => {
  const { client, asked } = clientOf({ success: true });
  const message = { at: new Date(0), url: new URL("http://a/"), list: [1, null, true, "é"], none: Object.create(null) };
  await client.push(message);
  assert.equal(asked[0].body, JSON.stringify({ message }));
});

test("the address of an app needs no slash at its end and no scheme", () => {
  const urlOf = (base) => new QueueClient("jobs", { base }).of("other").url("pop").href;
  const path = "api/queue/other/pop";
  for (const base of ["http://host/app", "http://host/app/", "http://host/app?a=1#b", "host/app", new URL("http://host/app")]) {
    assert.equal(urlOf(base), `http://host/app/${path}`);
  }
  assert.equal(urlOf("host:5000"), `http://host:5000/${path}`);
  assert.equal(urlOf("127.0.0.1:5000/app"), `http://127.0.0.1:5000/app/${path}`);
  assert.equal(urlOf("[::1]:5000"), `http://[::1]:5000/${path}`);
  assert.equal(urlOf("https://host"), `https://host/${path}`);
  for (const base of ["", "ftp://host/", "http://user:token@host/", "http://", "mailto:someone", "a b", null]) {
    assert.throws(() => urlOf(base), { code: "bad_base" }, String(base));
  }
});

test("a request that its signal ends says how, and whether it was sent", async () => {
  const hanging = (url, { signal }) =>
    new Promise((_, reject) => void signal.addEventListener("abort", () => reject(signal.reason)));
  const halfRead = async (url, { signal }) => {
    const start = (body) => signal.addEventListener("abort", () => body.error(signal.reason));
    return new Response(new ReadableStream({ start }));
  };
  for (const fetch of [hanging, halfRead]) {
    const client = new QueueClient("jobs", { base: BASE, fetch });
    await assert.rejects(client.pop({ signal: AbortSignal.timeout(1) }), { code: "timeout", message: /unknown/ });
    for (const reason of [undefined, null, "why", new Error("why")]) {
      const stop = new AbortController();
      const popping = client.pop({ signal: stop.signal });
      setTimeout(() => stop.abort(reason));
      await assert.rejects(popping, { code: "aborted", message: /unknown/ });
      await assert.rejects(client.pop({ signal: stop.signal }), { code: "aborted", message: /not sent/ });
    }
  }
  const client = new QueueClient("jobs", { base: BASE, fetch: halfRead });
  await assert.rejects(Array.fromAsync(client.find("a", { signal: AbortSignal.timeout(1) })), { code: "timeout" });
});

test("a response that breaks off or is no object has its own code", async () => {
  const responses = [new ReadableStream({ start: (body) => body.error(new TypeError("cut")) }), "null", "7", "<html>"];
  const client = new QueueClient("jobs", { base: BASE, fetch: async () => new Response(responses.shift()) });
  await assert.rejects(client.pop(), { code: "offline", message: /broke off.*unknown/ });
  for (let number = 0; number < 3; number += 1) await assert.rejects(client.pop(), { code: "no_json" });
});

test("an error of a handler is reported as uncaught, and the stream goes on", async () => {
  const uncaught = [];
  let requests = 0;
  const fetch = async () => {
    requests += 1;
    return new Response('event: queue\ndata: {"count":1}\n\nevent: queue\ndata: {"count":2}\n\n');
  };
  const client = new QueueClient("jobs", { base: BASE, fetch });
  const seen = [];
  const { reportError } = globalThis;
  globalThis.reportError = (error) => uncaught.push(error.message);
  try {
    await new Promise((done) => {
      const stop = client.events({
        queue: ({ count }) => {
          seen.push(count);
          throw new Error("of the handler");
        },
        connection: (now) => {
          if (now === "away") done(stop());
          throw new Error("of connection");
        },
      });
    });
  } finally {
    globalThis.reportError = reportError;
  }
  assert.deepEqual([seen, requests], [[1, 2], 1]);
  assert.equal(uncaught.filter((message) => message === "of the handler").length, 2);
});
