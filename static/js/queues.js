/** The page of all queues: follows them, and shows those in trouble first. */
import { QueueClient } from "./client.js";
import { byId, session, write } from "./ui/dom.js";
import { followAll, followWhileShown } from "./ui/following.js";
import { translator } from "./text/i18n.js";
import { SORTS, aged, changed, connected, initialOverview, listed, sparkMinutes, troublesOf } from "./state/queueList.js";
import { createQueueList, leadToRows } from "./ui/queueRows.js";
import { createStore, labelOf } from "./state/queue.js";

const SPOKEN_INTERVAL_MS = 10_000; // what changes by itself is spoken so often at most
const TICK_MS = 1000;
const SORT_KEY = "queues.sort";

const page = JSON.parse(byId("page").textContent);
const client = new QueueClient();
const store = createStore(initialOverview());
const texts = translator(page.catalogue, page.language);
const { t, failure } = texts;
const [filter, sort] = [byId("queues-filter"), byId("queues-sort")];
const queueList = createQueueList(byId("queues-view"), byId("queues-list"), texts);

// --- drawing

function update(state) {
  const { connection, error, known, queues, complete, unnamed } = state;
  byId("live").dataset.connection = connection;
  write(byId("live-text"), t(`live.${labelOf(state)}`));
  const isAbsent = ["fault", "away", "refused"].includes(connection);
  byId("absent").hidden = !isAbsent;
  byId("stage").classList.toggle("stale", isAbsent);
  if (isAbsent) write(byId("absent"), connection === "fault" && error?.code !== "redis_unavailable" ? failure(error) : t(`absent.${connection}`));
  if (!known) return;
  const found = queueList.update(state, { sort: sort.value, filter: filter.value.trim() });
  byId("empty").hidden = found > 0;
  write(byId("empty-title"), queues.size ? t("queues.found", { n: 0 }) : t("queues.none"));
  byId("empty-more").hidden = queues.size > 0;
  const troubled = [...queues.values()].filter((queue) => troublesOf(queue, Date.now()).length > 0).length;
  const facts = [t("queues.n", { n: queues.size }), troubled ? t("queues.troubled", { n: troubled }) : t("queues.untroubled")];
  if (!complete) facts.push(t("queues.incomplete"));
  if (unnamed) facts.push(t("queues.unnamed", { n: unnamed }));
  write(byId("summary"), facts.join(" · "));
  write(byId("spark-title"), t("queues.spark", { n: sparkMinutes(state, Date.now()) }));
  document.title = troubled && connection !== "idle" ? `(${texts.n(troubled)}) ${t("queues.all")}` : t("queues.all");
  speakOf(troubled);
}

let spokenOf = null; // how many queues in trouble were spoken of
let spokenAt = -Infinity;

/** Say how many queues are in trouble when that has changed, but rarely. */
function speakOf(troubled) {
  if (troubled === spokenOf || performance.now() - spokenAt < SPOKEN_INTERVAL_MS) return;
  if (spokenOf !== null) write(byId("spoken"), troubled ? t("queues.troubled", { n: troubled }) : t("queues.untroubled"));
  [spokenOf, spokenAt] = [troubled, performance.now()];
}

store.subscribe(update);
setInterval(() => document.hidden || store.change(aged, Date.now()), TICK_MS);

// --- filter and order

if (SORTS.includes(session.get(SORT_KEY, ""))) sort.value = session.get(SORT_KEY);
sort.addEventListener("change", () => {
  session.set(SORT_KEY, sort.value);
  update(store.state);
});
filter.addEventListener("input", () => update(store.state));
filter.addEventListener("change", () => write(byId("spoken"), t("queues.found", { n: queueList.update(store.state) })));
leadToRows(filter, queueList);

// --- following

followWhileShown(
  () =>
    followAll(client, {
      queues: (list) => store.change(listed, list, Date.now()),
      changed: (change) => store.change(changed, change, Date.now()),
      connection: (now, error) => store.change(connected, now, error),
    }),
  () => store.change(connected, "idle"),
);
