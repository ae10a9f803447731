import { QueueError } from "./client.js";
import { ask, at, memory } from "./dom.js";
import { sizeOf } from "./look.js";
import { linesOf } from "./state.js";

const AT_ONCE = 1000; // lines that are pushed in one request, all or none; more go as a stream

/** Push one message, many lines, or a file of any size. */
export function mountPush(app) {
  const { client, notices, page, t, curl, language } = app;
  const [text, each, next] = [at("push-text"), at("push-each"), at("push-next")];
  const sending = []; // {typed, lines, next}: the first is on its way, the others wait for it to keep their order

  // What was typed outlives a reload, as a change of the language is one, until it is in the queue.
  const draft = `draft:${page.name}`;
  const all = () => [...sending.map(({ typed }) => typed), text.value].filter(Boolean).join("\n");
  const keep = () => memory.set(draft, all());
  text.value = memory.get(draft, "");
  text.addEventListener("input", keep);

  /** The box is free at once for the next message; what did not get in comes back to it. */
  at("push-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    sending.push({ typed: text.value, lines: each.checked, next: next.checked });
    text.value = "";
    next.checked = false;
    text.focus();
    if (sending.length > 1) return;
    while (sending.length) {
      const [one] = sending;
      const rest = await (one.lines ? pushLines : pushOne)(one.typed, { next: one.next });
      if (rest) {
        one.typed = rest;
        text.value = all();
        next.checked = one.next;
        sending.length = 0;
      } else sending.shift();
      keep();
    }
  });
  text.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    at("push-form").requestSubmit();
  });

  /** Push a text; resolves with what of it is not in the queue. */
  async function pushOne(typed, options) {
    const done = await app.act(curl.push(typed, options), () => app.once((key) => client.push(typed, { ...options, key })));
    if (!done) return typed;
    notices.say(t("pushed", { n: 1 }));
    return "";
  }

  async function pushLines(typed, options) {
    const lines = linesOf(typed);
    if (!lines.length) {
      notices.fail({ code: "empty_message" });
      return typed;
    }
    if (lines.length > AT_ONCE) return lines.slice(await stream(new Blob([typed]), t("push.label"))).join("\n");
    const done = await app.act(curl.push(lines, options), () => app.once((key) => client.push(lines, { ...options, key })));
    if (!done) return typed;
    notices.say(t("pushed", { n: lines.length }));
    return "";
  }

  let streaming = Promise.resolve(); // there is one bar

  /** Push every line of a file, with a bar that moves and a way to stop; resolves with how many were pushed. */
  function stream(blob, name) {
    streaming = streaming.then(() => streamed(blob, name));
    return streaming;
  }

  async function streamed(blob, name) {
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
      notices.say(t(bytes < size ? "pushing.stopped" : "pushed", { n: pushed, name }));
      return pushed;
    } catch (error) {
      // What is no QueueError is the browser's: the file changed or went away meanwhile.
      notices.fail(error instanceof QueueError ? error : { code: "file", message: error.message });
      const pushed = error.answer?.pushed ?? 0;
      notices.say(t("pushing.stopped", { n: pushed, name }));
      return pushed;
    } finally {
      box.hidden = true;
    }
  }

  // --- files

  const picked = at("push-file");
  at("push-pick").addEventListener("click", () => picked.click());
  picked.addEventListener("change", () => {
    offerAll(picked.files);
    picked.value = "";
  });

  let offering = Promise.resolve(); // there is one dialog

  /** Ask of each file how to push it; who cancels one cancels those that come after it. */
  function offerAll(files) {
    const list = [...files];
    offering = offering.then(async () => {
      while (list.length && (await offer(list.shift())));
    });
  }

  async function offer(file) {
    at("dropped-title").textContent = t("dropped.title", { name: file.name, size: sizeOf(file.size, language) });
    at("dropped-whole").disabled = file.size > page.longest || file.size === 0;
    const answer = await ask(at("dropped"));
    if (answer === "lines") stream(file, file.name);
    if (answer === "whole") pushWhole(file);
    return answer !== "";
  }

  async function pushWhole(file) {
    if (await app.act(curl.pushBytes(file.name), () => client.pushBytes(file))) notices.say(t("pushed", { n: 1 }));
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
    offerAll(event.dataTransfer.files);
  });
}
