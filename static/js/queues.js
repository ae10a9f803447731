/** The page of all queues: follows them, and shows those with problems first. */
import { QueueClient } from "./client.js";
import { nameRule } from "./state/names.js";
import { labelOf } from "./state/queue.js";
import {
  SORTS, dropEmpty, initialList, problemsOf, receiveChange, receiveList, setListConnection, sparkMinutes,
} from "./state/queueList.js";
import { createStore } from "./state/store.js";
import { translator } from "./text/i18n.js";
import { byId, session, write, writeTitle } from "./ui/dom.js";
import { followAll, followWhileVisible } from "./ui/following.js";
import { createQueueRows, leadToRows } from "./ui/queueRows.js";

const SPEAK_INTERVAL_MS = 10_000; // how often a change is announced to screen readers
const TICK_MS = 1000;
const SORT_KEY = "queues.sort";

const page = JSON.parse(byId("page").textContent);
const client = new QueueClient();
const store = createStore(initialList());
const texts = translator(page.catalogue, page.language);
const { t, failure } = texts;
const [filter, sort] = [byId("queues-filter"), byId("queues-sort")];
const parts = { ...texts, isName: nameRule(page.limits.name) };
const queueRows = createQueueRows(byId("queues-view"), byId("queues-list"), parts);

// --- drawing

function update(state) {
  const { connection, error, known, queues, complete, unnamed } = state;
  byId("live").dataset.connection = connection;
  write(byId("live-text"), t(`live.${labelOf(state)}`));
  const isAbsent = ["fault", "away", "refused"].includes(connection);
  byId("absent").hidden = !isAbsent;
  byId("stage").classList.toggle("stale", isAbsent);
  const isOther = connection === "fault" && error?.code !== "redis_unavailable";
  if (isAbsent) write(byId("absent"), isOther ? failure(error) : t(`absent.${connection}`));
  if (!known) return;
  const found = queueRows.update(state, { sort: sort.value, filter: filter.value.trim() });
  byId("empty").hidden = found > 0;
  write(byId("empty-title"), queues.size ? t("queues.found", { n: 0 }) : t(complete ? "queues.none" : "queues.unknown"));
  byId("empty-more").hidden = queues.size > 0 || !complete;
  const troubled = [...queues.values()].filter((queue) => problemsOf(queue, Date.now()).length > 0).length;
  const facts = [t("queues.n", { n: queues.size })];
  if (complete || troubled) facts.push(textOf(troubled));
  if (!complete) facts.push(t("queues.incomplete"));
  if (unnamed) facts.push(t("queues.unnamed", { n: unnamed }));
  write(byId("summary"), facts.join(" · "));
  write(byId("spark-title"), t("queues.spark", { n: sparkMinutes(state, Date.now()) }));
  writeTitle(troubled && connection !== "idle" ? `(${texts.n(troubled)}) ${t("queues.all")}` : t("queues.all"));
  speak(troubled);
}

const textOf = (troubled) => (troubled ? t("queues.troubled", { n: troubled }) : t("queues.untroubled"));

let spokenCount = null; // the number of queues with problems last announced
let spokenAt = -Infinity;

/** Announce the number of queues with problems if it has changed, but rarely. */
function speak(troubled) {
  if (troubled === spokenCount || performance.now() - spokenAt < SPEAK_INTERVAL_MS) return;
  if (spokenCount !== null) write(byId("spoken"), textOf(troubled));
  [spokenCount, spokenAt] = [troubled, performance.now()];
}

store.subscribe(update);
setInterval(() => document.hidden || store.change(dropEmpty, Date.now()), TICK_MS);

// --- filter and order

if (SORTS.includes(session.get(SORT_KEY, ""))) sort.value = session.get(SORT_KEY);
sort.addEventListener("change", () => {
  session.set(SORT_KEY, sort.value);
  update(store.state);
});
filter.addEventListener("input", () => update(store.state));
filter.addEventListener("change", () => write(byId("spoken"), t("queues.found", { n: queueRows.update(store.state) })));
leadToRows(filter, queueRows);

// --- following

followWhileVisible(
  () =>
    followAll(client, {
      queues: (list) => store.change(receiveList, list, Date.now()),
      changed: (change) => store.change(receiveChange, change, Date.now()),
      connection: (now, error) => store.change(setListConnection, now, error),
    }),
  () => store.change(setListConnection, "idle"),
);
