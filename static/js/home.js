/** The queue's page: creates what the panels share, mounts them, and follows the queue. */
import { createActions } from "./actions.js";
import { QueueClient } from "./client.js";
import { curlCommands } from "./curl.js";
import { byId, session } from "./dom.js";
import { follow, followWhileShown } from "./following.js";
import { sizeOf } from "./format.js";
import { translator } from "./i18n.js";
import { mountClearAndMove } from "./panels/clearAndMove.js";
import { mountCopying } from "./panels/copying.js";
import { mountCurlBar } from "./panels/curlBar.js";
import { mountDialogs } from "./panels/dialogs.js";
import { mountExport } from "./panels/export.js";
import { mountFiles } from "./panels/files.js";
import { mountHeld } from "./panels/held.js";
import { mountHelp } from "./panels/help.js";
import { mountLive } from "./panels/live.js";
import { mountMessage } from "./panels/message.js";
import { mountNotices } from "./panels/notices.js";
import { mountPause } from "./panels/pause.js";
import { mountPush } from "./panels/push.js";
import { mountQueues } from "./panels/queues.js";
import { mountRecent } from "./panels/recent.js";
import { mountReleasing } from "./panels/releasing.js";
import { mountSearch } from "./panels/search.js";
import { mountTake } from "./panels/take.js";
import { mountWaiting } from "./panels/waiting.js";
import { createRecent, sharedStorage } from "./recent.js";
import { connected, createStore, initial, received } from "./state.js";

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
