import { QueueError } from "../../client.js";
import { byId, refocus, write } from "../../ui/dom.js";
import { createFile } from "../../ui/saving.js";

const SHOW_DELAY_MS = 300; // a shorter export shows no progress
const NEWLINE = 10;

/** Save the queue, or the messages that a search has found, to a file of JSON lines that can be pushed again. */
export function mountExport({ client, store, notices, page, t, curl, showCommand }) {
  const [progress, bar] = [byId("export-progress"), byId("export-bar")];
  let stop = null; // ends the export in progress

  /**
   * Save messages to a file.
   * @param {HTMLElement} button that was pressed @param {HTMLElement} place the progress is shown after it
   * @param {string} [contains] only messages that contain this text
   */
  async function exportQueue(button, place, contains) {
    if (stop) return void byId("export-cancel").focus();
    stop = new AbortController();
    const name = `${page.name}${contains === undefined ? "" : "-found"}-${today()}.ndjson`;
    place.after(progress);
    try {
      const file = await createFile(name);
      showCommand(curl.exportLines(name, contains));
      const timer = setTimeout(() => (progress.hidden = false), SHOW_DELAY_MS);
      await save(file, contains, name).finally(() => clearTimeout(timer));
    } catch (error) {
      report(error, name);
    } finally {
      stop = null;
      progress.hidden = true;
      refocus(button, progress);
    }
  }

  async function save(file, contains, name) {
    const total = contains === undefined ? store.state.count : 0; // 0: unknown until the search has ended
    let saved = 0;
    show(saved, total);
    try {
      for await (const bytes of client.exportLines({ contains, signal: stop.signal })) {
        await file.write(bytes);
        saved += linesIn(bytes);
        show(saved, total);
      }
      await file.close();
    } catch (error) {
      await file.abort().catch(() => {}); // it may be closed by its failure
      throw error;
    }
    notices.say(t("exported", { n: saved, name }));
  }

  function report(error, name) {
    if (error.name === "AbortError") return; // the visitor chose no file
    if (error.code === "aborted") notices.say(t("export.stopped"));
    else notices.fail(error instanceof QueueError ? error : { code: "not_saved", message: error.message }, name);
  }

  function show(saved, total) {
    write(byId("export-text"), t("exporting", { n: saved }));
    if (total) bar.value = Math.min(1, saved / total);
    else bar.removeAttribute("value");
  }

  const head = byId("export").closest("header");
  byId("export").addEventListener("click", (event) => exportQueue(event.currentTarget, head));
  byId("search").addEventListener("close", () => head.after(progress)); // the export continues
  byId("export-cancel").addEventListener("click", () => stop?.abort());
  return { exportQueue };
}

function linesIn(bytes) {
  let lines = 0;
  for (let at = bytes.indexOf(NEWLINE); at >= 0; at = bytes.indexOf(NEWLINE, at + 1)) lines += 1;
  return lines;
}

/** Return the local date as 2026-01-31. */
function today(now = new Date()) {
  return [now.getFullYear(), now.getMonth() + 1, now.getDate()].map((part) => String(part).padStart(2, "0")).join("-");
}
