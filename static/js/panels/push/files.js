import { nextLines } from "../../client/lines.js";
import { areJsonLines, sizeOf } from "../../text/format.js";
import { byId, openDialog } from "../../ui/dom.js";

const PROBE_BYTES = 1 << 16; // read of a file to find out what it contains; more if its first line is longer

/** Push files of any size, chosen or dropped on the page: each line as a message, or the whole file as one. */
export function mountFiles({ client, notices, page, t, curl, showCommand }) {
  const picker = byId("push-file");
  const percent = new Intl.NumberFormat(page.language, { style: "percent" });

  // --- pushing

  let queue = Promise.resolve(); // files go one after another, so that they keep their order and share one progress bar
  let stop = null; // ends the stream in progress

  function enqueue(work) {
    queue = queue.then(work);
    return queue;
  }

  /** Push every line of a blob as a message; resolves with the number pushed, even if it failed half way. */
  const pushStream = (blob, name, options = {}) => enqueue(() => streamNow(blob, name, options));

  async function streamNow(blob, name, { json = false }) {
    stop = new AbortController();
    showProgress(name, { pushed: 0, bytes: 0, size: blob.size || 1 });
    byId("push-progress").hidden = false;
    showCommand(curl.pushLines(name, { json }));
    try {
      const progress = (done) => showProgress(name, done);
      const { pushed, bytes, size } = await client.pushLines(blob, { json, progress, signal: stop.signal });
      notices.say(t(bytes < size ? "pushing.stopped" : "pushed", { n: pushed, name }));
      return pushed;
    } catch (error) {
      const { pushed } = error.answer;
      notices.fail(error, name);
      notices.say(t("pushing.stopped", { n: pushed, name }));
      return pushed;
    } finally {
      byId("push-progress").hidden = true;
      stop = null;
    }
  }

  function showProgress(name, { pushed, bytes, size }) {
    byId("push-progress-text").textContent = t("pushing", { n: pushed, percent: percent.format(bytes / size), name });
    byId("push-bar").value = bytes / size;
  }

  byId("push-cancel").addEventListener("click", () => stop?.abort());

  async function pushWhole(file) {
    showCommand(curl.pushBytes(file.name));
    try {
      await client.pushBytes(file);
      notices.say(t("pushed", { n: 1 }));
    } catch (error) {
      notices.fail(error, file.name);
    }
  }

  // --- choosing

  byId("push-pick").addEventListener("click", () => picker.click());
  picker.addEventListener("change", () => {
    offerAll(picker.files);
    picker.value = "";
  });

  let offering = Promise.resolve(); // there is one dialog for all files

  /** Offer to push each file in turn; canceling one cancels the files after it. */
  function offerAll(files) {
    const list = [...files];
    offering = offering.then(async () => {
      while (list.length && (await offer(list.shift())));
    });
  }

  async function offer(file) {
    const kind = await kindOfFile(file);
    if (kind !== "text" && kind !== "json") {
      notices.fail({ code: kind }, file.name);
      return true;
    }
    byId("dropped-json").checked = kind === "json";
    byId("dropped-title").textContent = t("dropped.title", { name: file.name, size: sizeOf(file.size, page.language) });
    byId("dropped-whole").disabled = file.size > page.max_message_bytes;
    const choice = await openDialog(byId("dropped"));
    if (choice === "lines") pushStream(file, file.name, { json: byId("dropped-json").checked });
    if (choice === "whole") enqueue(() => pushWhole(file));
    return choice !== "";
  }

  /** Return what a file contains, "text" or "json" (a value on each line), or an error code if it cannot be pushed. */
  async function kindOfFile(file) {
    let bytes;
    try {
      bytes = await nextLines(file, 0, PROBE_BYTES);
    } catch {
      return "folder";
    }
    if (!bytes.length) return "empty_file";
    if ((bytes[0] === 0xff && bytes[1] === 0xfe) || (bytes[0] === 0xfe && bytes[1] === 0xff)) return "utf16";
    if (areJsonLines(new TextDecoder().decode(bytes))) return "json"; // a line may be longer than its message
    const isOneLine = !bytes.subarray(0, page.max_message_bytes + 1).includes(10);
    return isOneLine && file.size > page.max_message_bytes ? "message_too_large" : "text";
  }

  // --- dropping

  let depth = 0; // dragenter and dragleave fire for every element that the pointer crosses
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  const setDepth = (value) => {
    depth = Math.max(0, value);
    byId("drop").hidden = depth === 0;
  };
  addEventListener("dragenter", (event) => hasFiles(event) && setDepth(depth + 1));
  addEventListener("dragleave", (event) => hasFiles(event) && setDepth(depth - 1));
  addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    setDepth(0);
    offerAll(event.dataTransfer.files);
  });
  return { pushStream };
}
