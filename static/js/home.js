/** The queue's page: makes what the panels share, mounts them, and follows the queue. */
import { QueueClient } from "./client.js";
import { curls } from "./curl.js";
import { at, memory } from "./dom.js";
import { translator } from "./i18n.js";
import { mountLive } from "./panels/live.js";
import { mountMessage } from "./panels/message.js";
import { mountNotices } from "./panels/notices.js";
import { mountPush } from "./panels/push.js";
import { mountQueues } from "./panels/queues.js";
import { aliveOf, connected, initial, received } from "./state.js";
import { mountTake } from "./panels/take.js";
import { mountTeach } from "./panels/curlBar.js";
import { mountTidy } from "./panels/clearAndMove.js";
import { mountWaiting } from "./panels/waiting.js";

const HIDDEN = 20_000; // milliseconds after which a hidden tab stops following: a browser has few connections to share
const TRIES = 3; // of an act whose answer was lost; the same key makes it happen once

const page = JSON.parse(at("page").textContent);
const SAMPLES = `samples:${page.name}`;
const client = new QueueClient(page.name);

/** The page's state: panels are updated once after however many changes. */
const store = {
  state: initial(page.name, memory.get(SAMPLES, [])),
  change(function_, ...given) {
    store.state = function_(store.state, ...given);
    store.due ??= queueMicrotask(() => {
      store.due = undefined;
      panels.forEach((update) => update(store.state));
    }) ?? true;
  },
};

const words = translator(page.catalogue, page.language);
const app = { page, client, store, ...words, curl: curls(client, page.token), alive: aliveOf(page.name) };
app.pageOf = (name) => new URL(`../../q/${encodeURIComponent(name).replaceAll("%3A", ":")}`, import.meta.url).href;
app.notices = mountNotices(app);
app.teach = mountTeach(app);

/** Do what a person asked for: show its curl line, tell what went wrong. Resolves with undefined then. */
app.act = async (line, run) => {
  if (line) app.teach(line);
  try {
    const result = await run();
    app.notices.clear();
    return result;
  } catch (error) {
    if (error.code !== "aborted") app.notices.fail(error);
    return undefined;
  }
};

app.key = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

/** Do something once even if its answer is lost: ask again with the same Idempotency-Key. */
app.once = async (run, key = app.key()) => {
  for (let left = TRIES - 1; ; left -= 1) {
    try {
      return await run(key);
    } catch (error) {
      if (!left || !["offline", "unknown"].includes(error.code)) throw error;
      await new Promise((done) => setTimeout(done, 700));
    }
  }
};

/** Push once, for everybody who pushes. Resolves with undefined when that failed. */
app.push = (what, { next, key }) =>
  app.act(app.curl.push(what, { next }), () => app.once((key) => client.push(what, { next, key }), key));

// A second click of a double click, and a key that is held down, do not do it twice.
const ONCE = "#push-go, .back, #put-all-back, #undo-go, .forget, #message-remove, #message-back";
addEventListener("click", (event) => {
  if (event.detail > 1 && event.target.closest(ONCE)) {
    event.preventDefault();
    event.stopPropagation();
  }
}, true);
addEventListener("keydown", (event) => {
  if (event.repeat && event.key === "Enter" && event.target.closest("button")) event.preventDefault();
}, true);

mountQueues(app);
const waiting = mountWaiting(app);
app.remove = waiting.remove;
app.open = mountMessage(app);
const panels = [mountLive(app), waiting.update, mountTake(app)];
mountPush(app);
mountTidy(app);
for (const button of document.querySelectorAll("dialog .close")) {
  button.addEventListener("click", () => button.closest("dialog").close());
}
// A click beside a dialog closes it; one that began or ended in it, as a selection does, does not.
for (const dialog of document.querySelectorAll("dialog")) {
  const beside = ({ target, clientX: x, clientY: y }) => {
    const { left, right, top, bottom } = dialog.getBoundingClientRect();
    return target === dialog && (x < left || x > right || y < top || y > bottom);
  };
  let began = false;
  dialog.addEventListener("pointerdown", (event) => (began = beside(event)));
  dialog.addEventListener("click", (event) => began && beside(event) && dialog.close());
}

// --- following the queue

let stop = null;
let hiding = 0;

function follow() {
  stop ??= client.events({
    queue: (state) => store.change(received, state, Date.now()),
    connection: (now, error) => store.change(connected, now, error),
  });
}

function pause() {
  stop?.();
  stop = null;
  store.change(connected, "paused");
}

document.addEventListener("visibilitychange", () => {
  clearTimeout(hiding);
  if (document.hidden) hiding = setTimeout(pause, HIDDEN);
  else follow();
});
addEventListener("pagehide", () => {
  memory.set(SAMPLES, store.state.samples);
  pause();
});
addEventListener("pageshow", () => document.hidden || follow());
follow();
