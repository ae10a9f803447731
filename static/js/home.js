/** The queue's page: creates what the panels share, mounts them, and follows the queue. */
import { createActions } from "./actions/actions.js";
import { QueueClient } from "./client.js";
import { mountCopying } from "./panels/messages/copying.js";
import { mountExport } from "./panels/messages/export.js";
import { mountMessage } from "./panels/messages/message.js";
import { mountSearch } from "./panels/messages/search.js";
import { mountWaiting } from "./panels/messages/waiting.js";
import { mountCurlBar } from "./panels/page/curlBar.js";
import { mountHelp } from "./panels/page/help.js";
import { mountSwitcher } from "./panels/page/switcher.js";
import { mountFiles } from "./panels/push/files.js";
import { mountPush } from "./panels/push/push.js";
import { mountClearAndMove } from "./panels/queue/clearAndMove.js";
import { mountLive } from "./panels/queue/live.js";
import { mountPause } from "./panels/queue/pause.js";
import { mountInFlight } from "./panels/take/inFlight.js";
import { mountRecent } from "./panels/take/recent.js";
import { mountReleasing } from "./panels/take/releasing.js";
import { mountTake } from "./panels/take/take.js";
import { nameRule } from "./state/names.js";
import { initialQueue, receiveState, setConnection } from "./state/queue.js";
import { createRecent, sharedStorage } from "./state/recent.js";
import { createStore } from "./state/store.js";
import { curlCommands } from "./text/curl.js";
import { sizeOf } from "./text/format.js";
import { translator } from "./text/i18n.js";
import { mountDialogs } from "./ui/dialogs.js";
import { byId, session } from "./ui/dom.js";
import { follow, followWhileVisible } from "./ui/following.js";
import { mountNotices } from "./ui/notices.js";

const page = JSON.parse(byId("page").textContent);
const samplesKey = `samples:${page.name}`;
const client = new QueueClient(page.name);
const store = createStore(initialQueue(page.name, session.get(samplesKey, [])));
const curl = curlCommands(client, page.token);
const { t, n, failure: failureText } = translator(page.catalogue, page.language);
const failure = (error) => failureText(error, { max: sizeOf(page.max_message_bytes, page.language) });
const isName = nameRule(page.limits.name);

// Each panel receives only this, and returns what others need of it.
const notices = mountNotices({ failure, t });
const { showCommand } = mountCurlBar({ notices, t, curl });
const recent = createRecent(page.name, sharedStorage());
const actions = createActions({ client, store, notices, recent, curl, showCommand, t, language: page.language });
const app = Object.freeze({ page, client, store, recent, actions, notices, curl, showCommand, failure, isName, t, n });

const { suggestNames } = mountSwitcher(app);
const { askRelease } = mountReleasing();
const { openCopy } = mountCopying(app, suggestNames);
const { openMessage } = mountMessage(app, askRelease, openCopy);
const waiting = mountWaiting(app, openMessage);
store.subscribe(mountLive(app).update);
store.subscribe(waiting.update);
store.subscribe(mountTake(app, openMessage, askRelease).update);
store.subscribe(mountRecent(app, openMessage).update);
store.subscribe(mountInFlight(app, openMessage, askRelease).update);
store.subscribe(mountPause(app).update);
mountPush(app, mountFiles(app));
const { openMove } = mountClearAndMove(app, suggestNames);
const { exportQueue } = mountExport(app);
mountSearch(app, { openMessage, openMove, exportQueue, goTo: waiting.goTo });
mountDialogs(app);
mountHelp();

// --- following the queue

followWhileVisible(
  () => {
    const handlers = {
      queue(state) {
        if (state.attached) document.body.classList.add(state.attached.may.length ? "attached" : "read-only");
        store.change(receiveState, state, Date.now(), client.clockOffset);
      },
      connection(now, error) {
        if (now === "live" && ["away", "fault"].includes(store.state.connection)) notices.clear(); // the outage is over
        store.change(setConnection, now, error, Date.now());
      },
    };
    return follow(client, handlers, { next: waiting.rowsShown(), history: true });
  },
  () => store.change(setConnection, "idle", null, Date.now()),
);
addEventListener("pagehide", () => session.set(samplesKey, store.state.samples)); // after following has stopped
