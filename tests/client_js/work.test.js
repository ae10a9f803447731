/** `work` of the npm package against a real server, SEEQUEUE_URL. Each test has a queue of its own. */
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { describe, test } from "node:test";
import { QueueClient, Reject } from "seequeue";

const ok = () => {};
const silent = { onRetry: ok, onReject: ok };

/** Poll until a condition holds, and return its value. The limit only fails tests that would never end. */
async function until(isMet, seconds = 20) {
  for (const end = Date.now() + seconds * 1000; ; ) {
    const value = await isMet();
    if (value) return value;
    assert.ok(Date.now() < end, `not met: ${isMet}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

/** Start a worker, and return what it warned of and a function that stops it. */
function start(queue, handler, options = {}) {
  const controller = new AbortController();
  const warnings = [];
  const ended = queue.work(handler, { onWarning: (text) => warnings.push(text), ...options, signal: controller.signal });
  const stop = () => (controller.abort(), ended);
  return { warnings, stop, ended };
}

const newQueue = (options) => new QueueClient(`js-${randomUUID()}`, options);
const dead = async (queue) => (await queue.of(`${queue.name}.dead`).all({ details: true })).messages;
const isEmpty = async (queue) => {
  const { count, reserved, delayed } = await queue.count();
  return count + reserved + delayed === 0;
};

/** A promise that a test resolves. */
function gate() {
  let open;
  const opened = new Promise((resolve) => (open = resolve));
  return { opened, open };
}

/** A fetch that a test can watch or break: `before` sees the operation and the body, and may answer in its place. */
function fetchWith(before) {
  return async (url, options) => {
    const [operation] = String(url).split("/").at(-1).split("?");
    const send = () => fetch(url, options);
    return (await before(operation, options.body && JSON.parse(options.body), send)) ?? send();
  };
}

describe("work", { concurrency: true }, () => {
  test("each message is handled in order and acked, and says what is known of it", async () => {
    const queue = newQueue();
    await queue.push(["text", { n: 1 }, { base64: "/w==" }]);
    const seen = [];
    const { stop, warnings } = start(queue, (message) => seen.push(message));
    await until(() => seen.length === 3 && isEmpty(queue));
    await stop();
    const [text, json, bytes] = seen;
    assert.deepEqual([text.text, json.json(), [...bytes.bytes]], ["text", { n: 1 }, [255]]);
    assert.equal(new TextDecoder().decode(text.bytes), "text");
    assert.deepEqual([text.deliveries, text.maxDeliveries, text.isLastDelivery, text.queue], [1, 5, false, queue.name]);
    assert.ok(text.deadline > Date.now() / 1000 - 60);
    assert.deepEqual(warnings, []);
  });

  test("a thousand messages are taken in order and acked with few requests", async () => {
    let requests = 0;
    const queue = newQueue({ fetch: fetchWith((operation) => void (operation !== "count" && (requests += 1))) });
    const texts = Array.from({ length: 1000 }, (_, number) => `${number}`);
    await queue.push(texts);
    const seen = [];
    const { stop } = start(queue, (message) => seen.push(message.text));
    await until(() => seen.length === 1000 && isEmpty(queue));
    await stop();
    assert.deepEqual(seen, texts);
    assert.ok(requests < 200, `${requests}`);
  });

  test("a failure is retried with its reason, and becomes a dead letter after the last delivery", async () => {
    const queue = newQueue();
    await queue.setSettings({ max_deliveries: 2 });
    await queue.push("a");
    const [started, ended] = [[], []];
    const note = (name) => (message, error) => ended.push([name, message.deliveries, error?.message]);
    const onStart = ({ deliveries }) => started.push(deliveries);
    const options = { retryDelay: 0, onStart, onDone: note("done"), onRetry: note("retry"), onReject: note("reject") };
    const fail = () => {
      throw new TypeError("no luck");
    };
    const { stop } = start(queue, fail, options);
    const [{ reason }] = await until(async () => (await dead(queue)).length && dead(queue));
    await until(() => ended.length === 2);
    await stop();
    assert.equal(reason, "TypeError: no luck");
    assert.deepEqual(started, [1, 2]);
    assert.deepEqual(ended, [["retry", 1, "no luck"], ["reject", 2, "no luck"]]);
  });

  test("the delay of a retry doubles with each delivery, and a bad delay is replaced", async () => {
    const delays = async (retryDelay) => {
      const queue = newQueue();
      await queue.push(["a", "b"]);
      const { stop } = start(queue, () => Promise.reject(new Error("x")), { ...silent, retryDelay });
      await until(async () => (await queue.count()).delayed === 2);
      await stop();
      const now = Date.now() / 1000; // of the same machine
      return (await queue.delayed()).messages.map(({ deadline, deliveries }) => [deadline - now, deliveries]);
    };
    const broken = () => {
      throw new Error("broken");
    };
    for (const bad of [undefined, broken, () => undefined, () => NaN, () => -1, async () => 5, "soon"]) {
      for (const [delay, deliveries] of await delays(bad)) assert.ok(delay <= 2 ** deliveries, `${bad}: ${delay}`);
    }
    for (const [delay] of await delays(() => Infinity)) assert.ok(delay > 2_000_000, `${delay}`);
    for (const [delay] of await delays((deliveries) => deliveries * 1000)) assert.ok(delay > 900 && delay < 1001, `${delay}`);
  });

  test("a Reject, and a message of the wrong shape, is a dead letter at once, and the worker goes on", async () => {
    const queue = newQueue();
    await queue.push(["rejected", "{not JSON", { base64: "/w==" }, '"good"']);
    const done = [];
    const handler = (message) => {
      if (message.deliveries === 1 && message.bytes[0] === 114) throw new Reject("no address");
      done.push(message.json());
    };
    const { stop } = start(queue, handler, silent);
    await until(() => isEmpty(queue));
    await stop();
    assert.deepEqual(done, ["good"]);
    const reasons = (await dead(queue)).map(({ reason }) => reason).toSorted();
    assert.match(reasons[0], /^Reject: The message is not JSON: /);
    assert.deepEqual(reasons.slice(1), ["Reject: The message is not UTF-8.", "Reject: no address"]);
  });

  test("whatever a handler throws, the worker goes on", async () => {
    const hostile = () => {
      throw new Error("hostile");
    };
    const revoked = Proxy.revocable({}, {});
    revoked.revoke();
    class Nameless extends Error {
      get name() {
        return hostile();
      }
    }
    const thrown = {
      undefined: [undefined, "undefined"],
      null: [null, "null"],
      text: ["a text", "a text"],
      symbol: [Symbol("s"), "Symbol(s)"],
      bare: [Object.create(null), "An error that has no text"],
      hostile: [{ toString: hostile }, "An error that has no text"],
      nameless: [new Nameless("x"), "An error that has no text"],
      revoked: [revoked.proxy, "An error that has no text"],
      surrogate: [new Error("\ud800"), "Error: \ufffd"],
      nul: [new Error("a\0b"), "Error: a\0b"],
      huge: [new Error("x".repeat(5_000_000)), `Error: ${"x".repeat(993)}`],
      cut: [new Error(`${"x".repeat(992)}😀`), `Error: ${"x".repeat(992)}\ufffd`],
    };
    const queue = newQueue();
    await queue.setSettings({ max_deliveries: 1 });
    await queue.push([...Object.keys(thrown), "good"]);
    const done = [];
    const handler = async (message) => {
      if (message.text in thrown) throw thrown[message.text][0];
      done.push(message.text);
    };
    const { stop } = start(queue, handler, { onReject: hostile, onDone: hostile, onStart: hostile, onWarning: hostile });
    await until(() => isEmpty(queue));
    await stop();
    assert.deepEqual(done, ["good"]);
    const found = Object.fromEntries((await dead(queue)).map(({ message, reason }) => [message, reason]));
    assert.deepEqual(found, Object.fromEntries(Object.entries(thrown).map(([name, [, reason]]) => [name, reason])));
  });

  test("an ack can store a result; one that cannot be stored is a failed job, never the end", async () => {
    const queue = newQueue();
    await queue.push(["sum", "large", "surrogate", "name", "none", "failed"]);
    const job = (name) => `${name}-${queue.name}`;
    const results = { sum: { total: 6 }, large: "x".repeat(2_000_000), surrogate: "\ud800", name: 1, none: undefined };
    const handler = (message) => {
      const { text } = message;
      if (text === "failed") message.reject("no numbers", { job: job(text) });
      else message.ack({ job: text === "name" ? 17n : job(text), result: results[text] });
    };
    const { stop, warnings } = start(queue, handler, { retryDelay: 1000 });
    await until(async () => (await queue.count()).delayed === 2 && (await queue.count()).reserved === 0);
    await stop();
    assert.deepEqual(JSON.parse((await queue.result(job("sum"))).result), { total: 6 });
    assert.match((await queue.result(job("large"))).failed, /^The server refused how it ended: QueueError: /);
    assert.match((await queue.result(job("surrogate"))).failed, /surrogate/);
    assert.equal((await queue.result(job("failed"))).failed, "no numbers");
    assert.equal(await queue.result(job("none")), null);
    const reasons = (await queue.delayed()).messages.map(({ reason }) => reason.slice(0, 30)).toSorted();
    assert.deepEqual(reasons, ["QueueError: A result must not ", "QueueError: JSON cannot hold 1"]);
    assert.equal(warnings.length, 5);
  });

  test("an outcome with a job that the server refuses is kept without the job", async () => {
    const queue = newQueue();
    await queue.push(["retried", "rejected"]);
    const handler = (message) => {
      if (message.text === "retried") message.retry({ delay: 100, reason: "later", job: "é" });
      else message.reject("never", { job: "é" });
    };
    const { stop } = start(queue, handler, silent);
    await until(async () => (await queue.count()).delayed === 1 && (await dead(queue)).length === 1);
    await stop();
    assert.equal((await dead(queue))[0].reason, "never");
  });

  test("a late ack is a warning, and the work learns of it by its signal", async () => {
    const queue = newQueue();
    await queue.push("a");
    const handler = async (message) => {
      if (message.deliveries > 1) return;
      await queue.release(message.id);
      await until(() => message.signal.aborted);
    };
    const { stop, warnings } = start(queue, handler, { lease: 2 });
    const late = () => warnings.filter((text) => /^The lease of message \S+ ended before its work/.test(text));
    await until(() => late().length);
    await until(() => isEmpty(queue));
    await stop();
    assert.equal(late().length, 1);
  });

  test("the leases of everything in hand are renewed in one request", async () => {
    const renewals = [];
    const fetch = fetchWith((operation, body) => void (body?.extends?.length && renewals.push(body.extends.length)));
    const queue = newQueue({ fetch });
    await queue.push(["a", "b", "c"]);
    const { opened, open } = gate();
    const ends = [];
    const handler = (message) => (ends.push(message.deadline), opened);
    const { stop } = start(queue, handler, { lease: 3, concurrency: 3 });
    await until(() => renewals.length);
    const isRenewed = ({ deadline }) => deadline > Math.max(...ends);
    const renewed = await until(async () => {
      const { messages } = await queue.reserved();
      return messages.length === 3 && messages.every(isRenewed) && messages;
    });
    open();
    await until(() => isEmpty(queue));
    await stop();
    assert.equal(new Set(renewed.map(({ deadline }) => deadline)).size, 1);
    assert.equal(renewals[0], 3);
  });

  test("once stopped, it finishes what has begun, releases the rest, and takes no more", async () => {
    const queue = newQueue();
    const texts = Array.from({ length: 200 }, (_, number) => `${number}`);
    await queue.push([...texts, "slow", "x", "y", "z"]);
    const { opened, open } = gate();
    const begun = [];
    const { stop } = start(queue, (message) => (begun.push(message.text), message.text === "slow" ? opened : null));
    await until(() => begun.includes("slow"));
    const stopped = stop();
    open();
    await stopped;
    assert.equal(begun.at(-1), "slow");
    assert.deepEqual((await queue.all()).messages, ["x", "y", "z"]);
    assert.equal((await queue.count()).reserved, 0);
  });

  test("a message that arrives at the moment of the stop is released", async () => {
    const controller = new AbortController();
    const fetch = fetchWith(async (operation, body, send) => {
      if (operation !== "reserve") return null;
      const answer = await (await send()).json();
      controller.abort();
      return Response.json(answer);
    });
    const queue = newQueue({ fetch });
    await queue.push("a");
    const begun = [];
    await queue.work((message) => begun.push(message), { signal: controller.signal });
    const { count, reserved } = await queue.count();
    assert.deepEqual([begun, count, reserved], [[], 1, 0]);
  });

  test("what is not finished within the grace is released", async () => {
    const queue = newQueue();
    await queue.push("endless");
    const begun = gate();
    const handler = (message) => new Promise(() => begun.open(message));
    const { stop } = start(queue, handler, { grace: 0.05, onRetry: ok });
    const message = await begun.opened;
    await stop();
    assert.ok(message.signal.aborted);
    const { messages } = await queue.all({ details: true });
    assert.equal(messages[0].reason, "The worker stopped before the work ended");
    await queue.work(ok, { signal: AbortSignal.abort() });
    assert.equal((await queue.count()).count, 1);
  });

  test("what waits behind slow work goes to a worker that is free, in order, even after its last delivery", async () => {
    const sizes = [];
    const watch = async (operation, body, send) => {
      if (operation !== "reserve") return null;
      const answer = await send();
      sizes.push((await answer.clone().json()).messages.length);
      return answer;
    };
    const sum = () => sizes.reduce((total, size) => total + size, 0);
    const queue = newQueue({ fetch: fetchWith(watch) });
    await queue.setSettings({ max_deliveries: 2 });
    await queue.push(["l1", "l2"]);
    const delivered = await queue.reserve({ max: 2 });
    await queue.release(delivered.map(({ id }) => id));
    const texts = Array.from({ length: 10 }, (_, number) => `${number}`);
    await queue.push(texts);
    const fast = Array.from({ length: 100 }, () => "fast"); // so that it reserves ahead
    await queue.push([...fast, "slow"], { front: true });
    const { opened, open } = gate();
    const begun = [];
    const handler = async (message) => {
      begun.push(message.text);
      if (message.text === "slow") await opened;
    };
    sizes.length = 0;
    const first = start(queue, handler);
    await until(() => begun.includes("slow") && sum() === 113);
    const taken = [];
    const second = start(newQueue().of(queue.name), (message) => taken.push(message.text));
    await until(() => taken.length === 12);
    await until(async () => (await queue.count()).reserved === 1);
    await second.stop();
    sizes.length = 0;
    open();
    await queue.push(fast);
    await until(() => sum() === 100);
    await first.stop();
    assert.deepEqual(taken, ["l1", "l2", ...texts]);
    assert.equal((await queue.count()).dead, 0);
    assert.equal(Math.max(...sizes), 1); // for a minute, none are reserved ahead
  });

  test("slow work is not reserved ahead", async () => {
    const queue = newQueue();
    await queue.push(Array.from({ length: 9 }, () => "a"));
    const gates = Array.from({ length: 9 }, gate);
    let begun = 0;
    const { stop } = start(queue, () => gates[begun++].opened, { concurrency: 2 });
    for (const index of [0, 1, 2, 3]) {
      await until(() => begun === index + 2);
      await new Promise((resolve) => setTimeout(resolve, 400)); // the work takes that long
      assert.equal((await queue.count()).reserved, 2);
      gates[index].open();
    }
    for (const { open } of gates) open();
    await stop();
  });

  test("with batch, the handler gets a list, whose messages can end differently", async () => {
    const queue = newQueue();
    await queue.push(["a", "b", "c", "d", "e"]);
    const sizes = [];
    const handler = (messages) => {
      sizes.push(messages.length);
      for (const message of messages) {
        if (message.text === "a") message.reject("bad");
        if (message.text === "b") message.retry({ delay: 500, reason: "busy" });
        if (message.text === "c") message.ack();
      }
      if (messages.some(({ text }) => text === "d")) throw new Error("the rest");
    };
    const { stop } = start(queue, handler, { batch: 4, retryDelay: 1000, ...silent });
    await until(async () => (await queue.count()).reserved === 0 && (await queue.count()).delayed === 2);
    await until(async () => (await queue.count()).count === 0);
    await stop();
    assert.deepEqual(sizes, [4, 1]);
    assert.deepEqual((await dead(queue)).map(({ message }) => message), ["a"]);
    assert.deepEqual((await queue.delayed()).messages.map(({ reason }) => reason), ["busy", "Error: the rest"]);
  });

  test("a message that makes its batch fail does not bury the others", async () => {
    const queue = newQueue();
    await queue.setSettings({ max_deliveries: 2 });
    await queue.push(["a", "bad", "c"]);
    const handler = (messages) => {
      if (messages.some(({ text }) => text === "bad")) throw new Error("bad");
    };
    const { stop } = start(queue, handler, { batch: 3, retryDelay: 0, ...silent });
    await until(() => isEmpty(queue));
    await stop();
    assert.deepEqual((await dead(queue)).map(({ message }) => message), ["bad"]);
  });

  test("messages of several queues are settled in their own", async () => {
    const [urgent, low] = [newQueue(), newQueue()];
    await low.push("l");
    await urgent.push("u");
    const seen = [];
    const { stop, warnings } = start(urgent.of([urgent.name, low.name]), (message) => seen.push(message.queue));
    await until(async () => (await isEmpty(urgent)) && isEmpty(low));
    await stop();
    assert.deepEqual([seen, warnings], [[urgent.name, low.name], []]);
  });

  test("it waits while the queue is paused or at its limit, without a warning", async () => {
    const queue = newQueue();
    await queue.pause();
    await queue.push(["a", "b"]);
    let done = 0;
    const { stop, warnings } = start(queue, () => (done += 1), { wait: 0.1 });
    await until(async () => (await queue.consumers()).consumers.length);
    await queue.setSettings({ per_second: 2 });
    await queue.resume();
    await until(() => done === 2);
    await stop();
    assert.deepEqual(warnings, []);
  });

  test("a server that is away is waited for, with one warning", async () => {
    let calls = 0;
    const failures = [
      () => Promise.reject(new TypeError("fetch failed")),
      () => new Response("<html>", { status: 404 }),
      () => Response.json({ success: false, error: "redis_unavailable", message: "Cannot reach Redis." }, { status: 503 }),
    ];
    const fetch = fetchWith((operation) => (operation === "reserve" && calls < 3 ? failures[calls++]() : null));
    const queue = newQueue({ fetch });
    await queue.push("a");
    let done = 0;
    const { stop, warnings } = start(queue, () => (done += 1));
    await until(() => done);
    await stop();
    assert.deepEqual(warnings, ["The server is not available; trying again. QueueError: No response. It is unknown whether this was done."]);
  });

  test("an ack whose body broke off on the way is sent again", async () => {
    let refused = 0;
    const answer = { success: false, error: "incomplete_body", message: "The body is shorter than its Content-Length." };
    const refuse = () => Response.json(answer, { status: 400 });
    const queue = newQueue({ fetch: fetchWith((operation) => (operation === "settle" && !refused++ ? refuse() : null)) });
    await queue.push("a");
    let done = 0;
    const { stop } = start(queue, (message) => message.ack({ job: queue.name, result: 1 }), { onDone: () => (done += 1) });
    await until(() => done);
    await stop();
    assert.deepEqual([(await queue.result(queue.name)).result, (await dead(queue)).length], ["1", 0]);
  });

  test("it takes no more while many acks cannot be sent", async () => {
    const { opened, open } = gate();
    const queue = newQueue({ fetch: fetchWith(async (operation) => void (operation === "settle" && (await opened))) });
    for (let number = 0; number < 4; number += 1) await queue.push(Array.from({ length: 1000 }, () => "a"));
    let begun = 0;
    const { stop } = start(queue, () => (begun += 1));
    await until(() => begun > 1000);
    for (let number = 0; number < 20; number += 1) await queue.count(); // time enough to take them all
    assert.ok(begun < 2000, `${begun}`);
    open();
    await until(() => begun === 4000 && isEmpty(queue));
    await stop();
  });

  test("an ack whose answer is lost is sent again", async () => {
    let lost = 0;
    const fetch = fetchWith(async (operation, body, send) => {
      if (operation !== "settle" || !body.acks.length || lost++) return null;
      await send();
      throw new TypeError("fetch failed");
    });
    const queue = newQueue({ fetch });
    await queue.push("a");
    let done = 0;
    const { stop, warnings } = start(queue, ok, { onDone: () => (done += 1) });
    await until(() => done);
    await stop();
    assert.deepEqual([lost, warnings.length, await isEmpty(queue)], [2, 1, true]);
  });

  test("a lasting refusal by the server, and a bad option, reject", async () => {
    const queue = newQueue();
    await assert.rejects(queue.work(ok, { lease: 1e9 }), { code: "bad_parameter" });
    const refuse = () => Response.json({ success: false, error: "token_required", message: "No token." }, { status: 401 });
    await assert.rejects(newQueue({ fetch: refuse }).work(ok), { code: "token_required" });
    await queue.push("a");
    const fetch = fetchWith((operation) => (operation === "settle" ? refuse() : null));
    const refused = new QueueClient(queue.name, { fetch });
    await assert.rejects(refused.work(ok), { code: "token_required" });
    assert.equal((await queue.count()).reserved, 1); // until its lease ends
    for (const options of [{ concurrency: 0 }, { concurrency: NaN }, { batch: 1.5 }, { grace: -1 }, { lease: NaN }, { wait: "20" }]) {
      await assert.rejects(queue.work(ok, options), RangeError);
    }
    await assert.rejects(queue.work(), TypeError);
  });

  test("workers are listed by their host and process", async () => {
    const queue = newQueue();
    const { stop } = start(queue, ok);
    const [{ by }] = await until(async () => {
      const { consumers } = await queue.consumers();
      return consumers.length && consumers;
    });
    await stop();
    assert.match(by, new RegExp(`:${process.pid}$`));
  });
});
