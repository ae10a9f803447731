/** The actions of a visitor: each shows its curl command, reports its failure, and loses no message. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { createActions } from "../../static/js/actions/actions.js";
import { newKey, retryWithKey } from "../../static/js/actions/idempotency.js";
import { QueueClient, QueueError } from "../../static/js/client.js";
import { addInHand } from "../../static/js/state/inHand.js";
import { initialQueue } from "../../static/js/state/queue.js";
import { createRecent } from "../../static/js/state/recent.js";
import { createStore } from "../../static/js/state/store.js";
import { curlCommands } from "../../static/js/text/curl.js";

const lost = () => new QueueError("offline", "No answer.");

/** Return actions on a queue whose client has these methods. `said` has the texts of the notices, and the commands. */
function actionsOf(client) {
  const said = [];
  const extras = []; // the links and buttons of the notices
  const store = createStore(initialQueue("jobs"));
  const actions = createActions({
    client,
    store,
    curl: curlCommands(new QueueClient("jobs", { base: "http://queue.test/" }), false),
    notices: {
      say(text, extra) {
        said.push(text);
        extras.push(extra);
      },
      fail: (error) => said.push(`failed: ${error.code}`),
      clear: () => {},
      sayAfter: () => () => {},
    },
    recent: createRecent("jobs", undefined),
    showCommand: (command) => said.push(command),
    t: (key) => key,
  });
  return { actions, said, extras, store };
}

test("an operation whose response is lost is retried with the same key, at most twice", async () => {
  const keys = [];
  const work = (failures) => (key) => {
    keys.push(key);
    return keys.length <= failures ? Promise.reject(lost()) : Promise.resolve("done");
  };
  assert.equal(await retryWithKey(work(2), "k", 0), "done");
  assert.deepEqual(keys.splice(0), ["k", "k", "k"]);
  await assert.rejects(retryWithKey(work(3), "k", 0), { code: "offline" });
  assert.deepEqual(keys.splice(0), ["k", "k", "k"]);
  await assert.rejects(retryWithKey(() => Promise.reject(new QueueError("stale", "")), "k", 0), { code: "stale" });
  assert.match(newKey(), /^[0-9a-f]{32}$/);
  assert.notEqual(newKey(), newKey());
});

test("a push shows its curl command and reports its failure", async () => {
  const { actions, said } = actionsOf({ push: () => Promise.reject(new QueueError("redis_full", "")) });
  assert.equal(await actions.push("hi", { front: false }), undefined);
  assert.deepEqual(said, ["curl --data-urlencode message=hi http://queue.test/api/queue/jobs/push", "failed: redis_full"]);
});

test("popped and reserved messages stay in hand", async () => {
  const reservation = { id: "7", message: "c", deliveries: 2 };
  const { actions, store } = actionsOf({ pop: async ({ max }) => (max ? ["a", "b"] : null), reserve: async () => reservation });
  assert.equal((await actions.pop({ max: 2 })).length, 2);
  assert.deepEqual(await actions.pop({}), []);
  const before = Date.now();
  await actions.reserve({ lease: 30 });
  assert.deepEqual(store.state.inHand.map(({ how, message }) => [how, message]), [["reserve", "c"], ["pop", "b"], ["pop", "a"]]);
  const [{ reservation: id, deliveries, lease, until }] = store.state.inHand;
  assert.deepEqual([id, deliveries, lease], ["7", 2, 30]);
  assert.ok(until >= before + 30_000 && until <= Date.now() + 30_000);
});

test("a message that is on its way when waiting is stopped is fetched with the key of that pop", async () => {
  const asked = [];
  const pop = async ({ wait, key }) => {
    asked.push({ wait, key });
    if (wait) throw new QueueError("aborted", "Stopped.");
    return "saved";
  };
  const { actions, store } = actionsOf({ pop });
  await actions.pop({ wait: 20 }, new AbortController().signal);
  assert.equal(store.state.inHand[0].message, "saved");
  assert.equal(asked[0].key, asked[1].key);
});

test("messages are put back newest first, each with its key, and stay in hand from the first failure on", async () => {
  const pushed = [];
  const push = async (message, { front, key }) => {
    if (pushed.length === 2) throw new QueueError("redis_unavailable", "");
    pushed.push([message, front, key]);
    return { count: 1 };
  };
  const { actions, said, store } = actionsOf({ push });
  store.change(addInHand, ["a", "b", "c"].map((message) => ({ how: "pop", message, key: `key ${message}` })));
  await actions.putBack(store.state.inHand);
  assert.deepEqual(pushed, [["c", true, "key c"], ["b", true, "key b"]]);
  assert.deepEqual(store.state.inHand.map(({ message }) => message), ["a"]);
  assert.deepEqual(said.slice(-2), ["failed: redis_unavailable", "backed"]);
});

test("a pop whose response is lost even after retries is retried by the next pop, with the same key and number", async () => {
  const asked = [];
  let isDown = true;
  const { actions, store } = actionsOf({
    pop: async ({ max, key }) => {
      asked.push([max, key]);
      if (isDown) throw new QueueError("no_json", "Bad gateway", 502);
      return asked.length === 4 ? ["saved", "too"] : "next";
    },
  });
  assert.equal(await actions.pop({ max: 2 }), undefined);
  isDown = false;
  await actions.pop({});
  assert.deepEqual(new Set(asked.map(String)).size, 1);
  await actions.pop({});
  assert.deepEqual(store.state.inHand.map(({ message }) => message), ["next", "too", "saved"]);
  assert.notEqual(asked[4][1], asked[3][1]);
  const keys = store.state.inHand.map(({ key }) => key);
  assert.ok(new Set(keys).size === 3 && keys.every((key) => /^[0-9a-f]{32}$/.test(key)));
});

test("a message that is being put back is not sent a second time", async () => {
  let pushes = 0;
  const { actions, store } = actionsOf({ push: async () => (pushes += 1) });
  store.change(addInHand, [{ how: "pop", message: "a" }]);
  const { inHand } = store.state;
  await Promise.all([actions.putBack(inHand), actions.putBack(inHand)]);
  assert.equal(pushes, 1);
  assert.deepEqual(store.state.inHand, []);
});

test("only the message that is shown is removed", async () => {
  const removed = [];
  const client = {
    all: async ({ offset }) => ({ messages: [["one", "two"][offset]].filter(Boolean) }),
    async remove(position, message, { undo }) {
      removed.push([position, message]);
      return { message, undo: undo && "u1" };
    },
  };
  const { actions, said, store } = actionsOf(client);
  assert.equal(await actions.remove(0, { preview: "tw", bytes: 3 }), undefined);
  assert.equal(await actions.remove(5, undefined), undefined);
  assert.deepEqual(said.splice(0), ["failed: moved", "failed: moved"]);
  assert.ok(await actions.remove(1, { preview: "tw", bytes: 3 }));
  assert.deepEqual(removed, [[1, "two"]]);
  assert.deepEqual(store.state.inHand.map(({ how, message }) => [how, message]), [["remove", "two"]]);
});

test("undoing a removal puts the message where it was, after an hour to the front", async () => {
  const done = [];
  const client = {
    all: async () => ({ messages: ["one"] }),
    remove: async (_, message) => ({ message, undo: "u1" }),
    restore: async (undo) => done.push(undo) && { restored: 1 },
    push: async (message, { front }) => done.push({ message, front }) && { count: 1 },
  };
  const { actions, extras, store } = actionsOf(client);
  await actions.remove(0);
  await extras.at(-1).action();
  assert.deepEqual(done.splice(0), ["u1"]);
  assert.deepEqual(store.state.inHand, []);
  await actions.remove(0);
  const hourAgo = Date.now() - 3600_000;
  await actions.putBack(store.state.inHand.map((one) => ({ ...one, time: hourAgo })));
  assert.deepEqual(done, [{ message: "one", front: true }]);
  assert.deepEqual(store.state.inHand, []);
});

test("a message that has moved is found nearby, and one that is gone is reported", async () => {
  let list = ["x", "one", "two", "two too"];
  const { actions, said } = actionsOf({
    all: async ({ offset, limit, preview }) => {
      const found = list.slice(offset, offset + limit);
      return { messages: found.map((message) => (preview ? { preview: message, bytes: message.length } : { message, deliveries: 0 })) };
    },
  });
  const shown = { preview: "two", bytes: 3 };
  assert.deepEqual(await actions.read(2, shown), { position: 2, message: "two", deliveries: 0 });
  list = list.slice(1);
  assert.deepEqual(await actions.read(2, shown), { position: 1, message: "two", deliveries: 0 });
  list = ["one"];
  assert.equal(await actions.read(2, shown), undefined);
  assert.equal(said.at(-1), "failed: moved");
});

test("a single message is moved, even from a position nearby, and never another one", async () => {
  let list = ["x", "one", "two"];
  const client = {
    all: async ({ offset, limit }) => ({ messages: list.slice(offset, offset + limit).map((preview) => ({ preview, bytes: preview.length })) }),
    async move(to, { position, message }) {
      if (list[position] !== message) throw new QueueError("stale", "");
      list = list.toSpliced(position, 1);
      return { moved: 1 };
    },
  };
  const { actions, said, extras } = actionsOf(client);
  assert.deepEqual(await actions.moveOne("other", 2, "two"), { moved: 1 });
  list = ["one"];
  assert.deepEqual(await actions.moveOne("other", 1, "one"), { moved: 1 });
  assert.match(extras.at(-1).href, /\/q\/other$/);
  list = ["another"];
  assert.equal(await actions.moveOne("other", 0, "one"), undefined);
  assert.deepEqual([list, said.at(-1)], [["another"], "failed: moved"]);
});

test("a copy is pushed to its queue once, even if a response is lost", async () => {
  const pushed = [];
  const of = (name) => ({
    async push(message, { key }) {
      pushed.push([name, message, key]);
      if (pushed.length === 1) throw lost();
      return { count: 1 };
    },
  });
  const { actions, said, extras } = actionsOf({ of });
  assert.ok(await actions.pushCopy("other", { base64: "/w==" }, "k"));
  assert.deepEqual(pushed, [["other", { base64: "/w==" }, "k"], ["other", { base64: "/w==" }, "k"]]);
  assert.match(said[0], /queue\/other\/push$/);
  assert.match(extras.at(-1).href, /\/q\/other$/);
  await actions.pushCopy("jobs", "a", "k2");
  assert.equal(extras.at(-1), undefined);
});

test("a reserved message is read whole even if its place in the list has changed", async () => {
  const list = [{ id: "1" }, { id: "2", message: "two" }];
  const { actions, said } = actionsOf({ reserved: async ({ offset, limit }) => ({ messages: list.slice(offset, offset + limit) }) });
  assert.equal((await actions.readInFlight("reserved", "2", 1)).message, "two");
  assert.equal((await actions.readInFlight("reserved", "2", 0)).message, "two");
  assert.equal(await actions.readInFlight("reserved", "3", 0), undefined);
  assert.equal(said.at(-1), "failed: moved");
});

test("a notice says when a message that was put back is available, or that it was buried", async () => {
  let answer = { released: 1, dead: 0 };
  const released = [];
  const { actions, said } = actionsOf({ release: async (...args) => released.push(args) && answer });
  await actions.release("r1");
  await actions.release("r1", { delay: 60 });
  answer = { released: 1, dead: 1 };
  await actions.release("r1", { dead: true, reason: "bad" });
  await actions.release("r1");
  assert.deepEqual(released[2], ["r1", { dead: true, reason: "bad" }]);
  assert.deepEqual(said.filter((text) => !text.startsWith("curl")), ["backed", "backed.later", "buried", "buried.often"]);
});

test("a delayed message is removed by its id, and can be put back", async () => {
  const acked = [];
  const { actions, store, said } = actionsOf({
    delayed: async ({ offset }) => ({ messages: [{ id: "5d", message: "later" }].slice(offset) }),
    ack: async (id) => acked.push(id),
  });
  assert.equal(await actions.removeDelayed("6d", 0), undefined);
  assert.deepEqual([acked, said.at(-1)], [[], "failed: moved"]);
  await actions.removeDelayed("5d", 0);
  assert.deepEqual(acked, ["5d"]);
  assert.deepEqual(store.state.inHand.map(({ how, message }) => [how, message]), [["remove", "later"]]);
});

test("a queue is not moved to itself", async () => {
  const moved = [];
  const { actions, said } = actionsOf({ move: async (to) => moved.push(to) && { moved: 1 } });
  await actions.move("jobs");
  assert.deepEqual([moved, said.splice(0)], [[], ["failed: same_queue"]]);
  await actions.move("other");
  assert.deepEqual(moved, ["other"]);
  assert.equal(said.at(-1), "moved");
});

test("discarding can be undone, but not for a reservation that has ended", () => {
  const { actions, said, extras, store } = actionsOf({});
  store.change(addInHand, [{ how: "pop", message: "a" }, { how: "reserve", message: "b" }]);
  for (const one of store.state.inHand) actions.discard(one);
  assert.deepEqual([store.state.inHand, said], [[], ["discarded"]]);
  extras[0].action();
  assert.deepEqual(store.state.inHand.map(({ message }) => message), ["a"]);
});
