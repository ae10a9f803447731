/** The queue's page: creates what the panels share, mounts them, and follows the queue. */
import { createActions } from "./actions/actions.js";
import { QueueClient } from "./client.js";
import { curlCommands } from "./text/curl.js";
import { byId, session } from "./ui/dom.js";
import { follow, followWhileShown } from "./ui/following.js";
import { sizeOf } from "./text/format.js";
import { translator } from "./text/i18n.js";
import { mountClearAndMove } from "./panels/queue/clearAndMove.js";
import { mountCopying } from "./panels/messages/copying.js";
import { mountCurlBar } from "./panels/page/curlBar.js";
import { mountDialogs } from "./ui/dialogs.js";
import { mountExport } from "./panels/messages/export.js";
import { mountFiles } from "./panels/push/files.js";
import { mountHeld } from "./panels/take/inFlight.js";
import { mountHelp } from "./panels/page/help.js";
import { mountLive } from "./panels/queue/live.js";
import { mountMessage } from "./panels/messages/message.js";
import { mountNotices } from "./ui/notices.js";
import { mountPause } from "./panels/queue/pause.js";
import { mountPush } from "./panels/push/push.js";
import { mountQueues } from "./panels/page/switcher.js";
import { mountRecent } from "./panels/take/recent.js";
import { mountReleasing } from "./panels/take/releasing.js";
import { mountSearch } from "./panels/messages/search.js";
import { mountTake } from "./panels/take/take.js";
import { mountWaiting } from "./panels/messages/waiting.js";
import { createRecent, sharedStorage } from "./state/recent.js";
import { connected, createStore, initial, received } from "./state/queue.js";

const page = JSON.parse(byId("page").textContent);
const samplesKey = `samples:${page.name}`;
const client = new QueueClient(page.name);
const store = createStore(initial(page.name, session.get(samplesKey, [])));
const curl = curlCommands(client, page.token);
const { t, n, failure: failureText } = translator(page.catalogue, page.language);
const failure = (error) => failureText(error, { max: sizeOf(page.max_message_bytes, page.language) });

// Each panel gets only this and returns what others need of it.
const notices = mountNotices({ failure, t });
const { showCommand } = mountCurlBar({ notices, t, curl });
const recent = createRecent(page.name, sharedStorage());
const actions = createActions({ client, store, notices, recent, curl, showCommand, t, language: page.language });
const app = Object.freeze({ page, client, store, recent, actions, notices, curl, showCommand, failure, t, n });

const { suggestNames } = mountQueues(app);
const { askRelease } = mountReleasing();
const { openCopy } = mountCopying(app, suggestNames);
const { openMessage } = mountMessage(app, askRelease, openCopy);
const waiting = mountWaiting(app, openMessage);
store.subscribe(mountLive(app).update);
store.subscribe(waiting.update);
store.subscribe(mountTake(app, openMessage, askRelease).update);
store.subscribe(mountRecent(app, openMessage).update);
store.subscribe(mountHeld(app, openMessage, askRelease).update);
store.subscribe(mountPause(app).update);
mountPush(app, mountFiles(app));
const { openMove } = mountClearAndMove(app, suggestNames);
const { exportQueue } = mountExport(app);
mountSearch(app, { openMessage, openMove, exportQueue, goTo: waiting.goTo });
mountDialogs(app);
mountHelp();

// --- following the queue

followWhileShown(
  () => {
    const handlers = {
      queue: (state) => store.change(received, state, Date.now(), client.clockOffset),
      connection(now, error) {
        if (now === "live" && ["away", "fault"].includes(store.state.connection)) notices.clear(); // the outage is over
        store.change(connected, now, error, Date.now());
      },
    };
    return follow(client, handlers, { next: waiting.rowsShown(), history: true });
  },
  () => store.change(connected, "idle", null, Date.now()),
);
addEventListener("pagehide", () => session.set(samplesKey, store.state.samples)); // after the end of following
