import { QueueError } from "./client.js";
import { ask, at, memory } from "./dom.js";
import { sizeOf } from "./look.js";
import { linesOf } from "./state.js";

const AT_ONCE = 1000; // lines that are pushed in one request, all or none; more go as a stream

/** Push one message, many lines, or a file of any size. */
export function mountPush(app) {
  const { client, notices, page, t, curl, language } = app;
  const [text, each, next] = [at("push-text"), at("push-each"), at("push-next")];
  let busy = false;

  // What was typed outlives a reload, as a change of the language is one.
  const draft = `draft:${page.name}`;
  text.value = memory.get(draft, "");
  text.addEventListener("input", () => memory.set(draft, text.value));

  at("push-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    if (busy) return;
    const typed = text.value;
    busy = true;
    const done = each.checked ? await pushLines(typed) : await pushOne(typed);
    busy = false;
    if (!done) return;
    if (text.value === typed) text.value = "";
    memory.set(draft, text.value);
    next.checked = false;
    text.focus();
  });
  text.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    at("push-form").requestSubmit();
  });

  async function pushOne(typed) {
    const options = { next: next.checked };
    const done = await app.act(curl.push(typed, options), () => app.once((key) => client.push(typed, { ...options, key })));
    if (done) notices.say(t("pushed", { n: 1 }));
    return done;
  }

  async function pushLines(typed) {
    const lines = linesOf(typed);
    if (!lines.length) return void notices.fail({ code: "empty_message" });
    if (lines.length > AT_ONCE) return stream(new Blob([typed]), t("push.label"));
    const options = { next: next.checked };
    const done = await app.act(curl.push(lines, options), () => app.once((key) => client.push(lines, { ...options, key })));
    if (done) notices.say(t("pushed", { n: lines.length }));
    return done;
  }

  /** Push every line of a file, with a bar that moves and a way to stop. */
  async function stream(blob, name) {
    const stop = new AbortController();
    const box = at("push-progress");
    const percent = new Intl.NumberFormat(language, { style: "percent" });
    const progress = ({ pushed, bytes, size }) => {
      at("push-progress-text").textContent = t("pushing", { n: pushed, percent: percent.format(bytes / size), name });
      at("push-bar").value = bytes / size;
    };
    progress({ pushed: 0, bytes: 0, size: blob.size || 1 });
    box.hidden = false;
    at("push-cancel").onclick = () => stop.abort();
    app.teach(curl.pushLines(name));
    try {
      const { pushed, bytes, size } = await client.pushLines(blob, { progress, signal: stop.signal });
      if (bytes < size) notices.say(t("pushing.stopped", { n: pushed, name }));
      else notices.say(t("pushed", { n: pushed }));
      return true;
    } catch (error) {
      // What is no QueueError is the browser's: the file changed or went away meanwhile.
      notices.fail(error instanceof QueueError ? error : { code: "file", message: error.message });
      notices.say(t("pushing.stopped", { n: error.answer?.pushed ?? 0, name }));
      return false;
    } finally {
      box.hidden = true;
    }
  }

  // --- files

  const picked = at("push-file");
  at("push-pick").addEventListener("click", () => picked.click());
  picked.addEventListener("change", async () => {
    const [file] = picked.files;
    if (file) await offer(file);
    picked.value = "";
  });

  async function offer(file) {
    if (busy) return;
    at("dropped-title").textContent = t("dropped.title", { name: file.name, size: sizeOf(file.size, language) });
    at("dropped-whole").disabled = file.size > page.longest || file.size === 0;
    const answer = await ask(at("dropped"));
    busy = true;
    if (answer === "lines") await stream(file, file.name);
    if (answer === "whole" && (await app.act(curl.pushBytes(file.name), () => client.pushBytes(file)))) {
      notices.say(t("pushed", { n: 1 }));
    }
    busy = false;
  }

  let depth = 0; // dragenter and dragleave come for every element on the way
  const hasFile = (event) => event.dataTransfer?.types.includes("Files");
  const mark = (change) => {
    depth = Math.max(0, change === 0 ? 0 : depth + change);
    at("drop").hidden = depth === 0;
  };
  addEventListener("dragenter", (event) => hasFile(event) && mark(1));
  addEventListener("dragleave", (event) => hasFile(event) && mark(-1));
  addEventListener("dragover", (event) => hasFile(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    if (!hasFile(event)) return;
    event.preventDefault();
    mark(0);
    const [file] = event.dataTransfer.files;
    if (file) offer(file);
  });
}
