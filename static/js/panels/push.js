import { QueueError } from "../client.js";
import { ask, at, clone, memory } from "../dom.js";
import { oneLine, sizeOf } from "../format.js";
import { linesOf } from "../state.js";

const AT_ONCE = 1000; // lines that are pushed in one request, all or none; more go as a stream

/** Push one message, many lines, or a file of any size. */
export function mountPush(app) {
  const { client, notices, page, t, curl, language } = app;
  const [text, each, next] = [at("push-text"), at("push-each"), at("push-next")];
  const [draft, outbox] = [`draft:${page.name}`, `outbox:${page.name}`];

  /** @typedef {{typed: string, lines: boolean, next: boolean, key: string}} Push key: makes asking again harmless */
  const sending = []; // the first is on its way, the others wait for it to keep their order
  const unsent = []; // what did not get in, as cards

  // --- the box: what is in it outlives a reload, as a change of the language is one

  let known = memory.get(draft, {}); // the push that was last put into the box

  function inBox() {
    const now = { typed: text.value, lines: each.checked, next: next.checked };
    const same = now.typed === known.typed && now.lines === known.lines && now.next === known.next;
    return { ...now, key: (same && known.key) || app.key() };
  }

  function fill(one) {
    known = one;
    text.value = one.typed ?? "";
    each.checked = one.lines ?? false;
    next.checked = one.next ?? false;
  }

  const keepBox = () => memory.set(draft, inBox());

  function keep() {
    keepBox();
    memory.set(outbox, [...sending, ...unsent]);
  }

  for (const one of [text, each, next]) one.addEventListener("input", keepBox);

  /** The box is free at once for the next message. */
  at("push-form").addEventListener("submit", (event) => {
    event.preventDefault();
    text.focus();
    const one = inBox();
    if (one.typed) {
      fill({ lines: one.lines });
      send(one);
      keep();
    } else if (!sending.length) notices.fail({ code: "empty_message" });
  });
  text.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    if (!event.repeat) at("push-form").requestSubmit();
  });

  function send(one) {
    sending.push(one);
    if (sending.length === 1) sendAll();
  }

  async function sendAll() {
    while (sending.length) {
      const [one] = sending;
      const rest = await (one.lines ? pushLines : pushOne)(one);
      if (rest === "") sending.shift();
      else {
        if (rest !== one.typed) Object.assign(one, { typed: rest, key: app.key() });
        hold(sending.splice(0));
      }
      keep();
    }
  }

  // --- what did not get in: the first goes back into the box if that is free, what was to follow it waits with it

  function hold(list) {
    if (list.length && !text.value) fill(list.shift());
    unsent.push(...list);
    draw();
  }

  function draw() {
    at("unsent").replaceChildren(
      ...unsent.map((one) => {
        const card = clone("unsent-template");
        card.querySelector(".preview").textContent = oneLine(one.typed).slice(0, 400);
        const acts = {
          again: () => send(one),
          edit() {
            const before = inBox();
            fill(one);
            if (before.typed) unsent.unshift(before);
          },
          forget: () => notices.say(t("forgot"), { text: t("undo"), act: () => (hold([one]), keep()) }),
        };
        for (const [act, run] of Object.entries(acts)) {
          card.querySelector(`.${act}`).addEventListener("click", () => {
            unsent.splice(unsent.indexOf(one), 1);
            run();
            draw();
            keep();
            text.focus();
          });
        }
        return card;
      }),
    );
  }

  fill(known);
  hold(memory.get(outbox, []));

  // --- pushing; each resolves with what of the text is not in the queue

  const pushOne = async (one) => ((await pushed(one.typed, 1, one)) ? "" : one.typed);

  async function pushLines(one) {
    const lines = linesOf(one.typed);
    // A stream goes to the end of the queue only.
    if (lines.length > AT_ONCE && !one.next) return lines.slice(await stream(new Blob([one.typed]), t("push.label"))).join("\n");
    if (lines.length) return (await pushed(lines, lines.length, one)) ? "" : one.typed;
    notices.fail({ code: "empty_message" });
    return one.typed;
  }

  async function pushed(what, n, options) {
    const done = await app.push(what, options);
    if (done) notices.say(t("pushed", { n }));
    return done;
  }

  let turn = Promise.resolve(); // files go in one after another: they keep their order, and there is one bar

  function inTurn(run) {
    turn = turn.then(run);
    return turn;
  }

  /** Push every line of a file, with a bar that moves and a way to stop; resolves with how many were pushed. */
  const stream = (blob, name) => inTurn(() => streamed(blob, name));

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
      notices.fail(error instanceof QueueError ? error : { code: "file", message: error.message }, name);
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
    if (answer === "whole") inTurn(() => pushWhole(file));
    return answer !== "";
  }

  async function pushWhole(file) {
    app.teach(curl.pushBytes(file.name));
    try {
      const bytes = await file.arrayBuffer().catch(({ message }) => Promise.reject({ code: "file", message }));
      await client.pushBytes(new Uint8Array(bytes));
      notices.say(t("pushed", { n: 1 }));
    } catch (error) {
      notices.fail(error, file.name);
    }
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
