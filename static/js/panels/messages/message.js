import { byId, write } from "../../ui/dom.js";
import { bytesOf, headOf, hexOf, indented, kindOf, piecesOf, sizeOf } from "../../text/format.js";
import { historyOf, untilOf } from "../../text/deliveries.js";
import { parentOf } from "../../state/names.js";
import { download } from "../../ui/saving.js";

const MAX_SHOWN_CHARACTERS = 100_000; // the rest is shown on request: laying out text takes long
const PART_CHARACTERS = 10_000; // of the rest, laid out together
const CLOCK_INTERVAL_MS = 1000; // how often the remaining time is shown
const FIRST_VIEWS = { json: "json", text: "text", bytes: "hex" }; // by kind
const FILE_NAMES = { json: "message.json", text: "message.txt", bytes: "message.bin" };
const TAKEN_TITLES = { pop: "popped", remove: "removed", reserve: "reserved" };

/** Return the beginning of a text, of whole lines unless the first is longer. */
function linesUpTo(text, length) {
  const head = headOf(text, length);
  return head === text ? head : head.slice(0, head.lastIndexOf("\n") + 1 || head.length);
}

/** Yield a text in blocks that the browser lays out only where they are seen: as one, a megabyte takes seconds. */
function* partsOf(text) {
  for (let rest = text; rest; ) {
    const part = linesUpTo(rest, PART_CHARACTERS);
    yield Object.assign(document.createElement("span"), { className: "part", textContent: part });
    rest = rest.slice(part.length);
  }
}

/** One whole message: formatted, as text, or as hexadecimal; what is known of it, and what can be done with it. */
export function mountMessage({ client, page, actions, notices, t, n }, askRelease, openCopy) {
  const dialog = byId("message");
  const [body, rest] = [byId("message-body"), byId("message-rest")];
  const buttons = dialog.querySelectorAll("[data-view]");
  /** What is shown: {message, position?, taken?, held?, deliveries?, ...}; held: {kind, id, place?, deadline, deliveries} */
  let opened = null;
  let hiddenText = "";
  let finish = () => {};

  /**
   * Open a message: one that waits, by its position and what is shown of it (`preview`); one that was `taken`; or one that
   * is reserved or delayed (`held`: {kind, id, place}). Resolves once it is closed; true if the message is gone from there.
   */
  async function openMessage({ position, preview, taken, held }) {
    const found = taken ?? (held ? await actions.readHeld(held.kind, held.id, held.place) : await actions.read(position, preview));
    if (!found) return false;
    const { deadline, deliveries } = found;
    opened = { ...found, taken, held: held ? { ...held, deadline, deliveries } : taken && reservationOf(taken) };
    const kind = kindOf(opened.message);
    showHistory();
    write(byId("message-title"), titleOf(opened));
    const facts = [kind === "text" ? "" : t(`waiting.${kind}`), sizeOf(bytesOf(opened.message).length, page.language)];
    write(byId("message-facts"), facts.filter(Boolean).join(" · "));
    offer(opened);
    for (const button of buttons) {
      const { view } = button.dataset;
      button.hidden = (view === "json" && kind !== "json") || (view === "text" && kind === "bytes");
    }
    show(FIRST_VIEWS[kind]);
    if (!dialog.open) dialog.showModal();
    body.focus();
    body.scrollTop = 0;
    return new Promise((done) => {
      finish = done;
    });
  }

  /** Return what is known of a reservation of this page that is not over. */
  function reservationOf({ how, reservation, until, deliveries }) {
    if (how !== "reserve" || until < Date.now()) return undefined;
    return { kind: "reserved", id: reservation, deadline: (until + client.clockOffset) / 1000, deliveries };
  }

  function titleOf({ position, taken, held }) {
    if (taken) return t(TAKEN_TITLES[taken.how]);
    return held ? t(held.kind) : t("message.title", { position: n(position + 1) });
  }

  /** Show what can be done with this message, and nothing else. */
  function offer({ taken, held }) {
    const isWaiting = !taken && !held;
    if (parentOf(page.name)) byId("message-move").hidden = !isWaiting;
    byId("message-back").hidden = !held && (!taken || taken.how === "reserve");
    byId("message-later").hidden = !held;
    byId("message-remove").hidden = !isWaiting && held?.kind !== "delayed";
  }

  /** Show how often it was delivered, why it failed, and until when it is reserved or delayed. */
  function showHistory() {
    const texts = { t, language: page.language, max: page.max_deliveries };
    const { held } = opened;
    const until = held && untilOf(held, Date.now() + client.clockOffset, texts);
    const history = historyOf(held ? { ...opened, deliveries: 0 } : opened, texts);
    write(byId("message-history"), [until, history].filter(Boolean).join(" · "));
  }
  setInterval(() => opened?.held && showHistory(), CLOCK_INTERVAL_MS);

  function show(view) {
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.view === view));
    const { message } = opened;
    const text = view === "hex" ? hexOf(bytesOf(message)).lines : view === "json" ? indented(message) : message;
    const head = linesUpTo(text, MAX_SHOWN_CHARACTERS);
    hiddenText = text.slice(head.length);
    body.replaceChildren(...(view === "json" ? coloured(head) : [head]));
    rest.hidden = hiddenText === "";
    rest.textContent = t("message.rest", { size: sizeOf(bytesOf(hiddenText).length, page.language) });
  }

  function* coloured(json) {
    for (const { text, kind } of piecesOf(json)) {
      yield kind ? Object.assign(document.createElement("span"), { className: kind, textContent: text }) : text;
    }
  }

  dialog.addEventListener("click", (event) => {
    const button = event.target.closest("[data-view]");
    if (button) show(button.dataset.view);
  });
  dialog.addEventListener("close", () => {
    body.textContent = "";
    hiddenText = "";
    opened = null;
    finish(false);
  });
  rest.addEventListener("click", () => {
    body.append(...partsOf(hiddenText));
    hiddenText = "";
    rest.hidden = true;
    body.focus();
  });

  // --- what can be done

  byId("message-copy").addEventListener("click", (event) => {
    const { message } = opened;
    notices.copy(typeof message === "string" ? message : message.base64, event.currentTarget);
  });
  byId("message-download").addEventListener("click", () => {
    const { message } = opened;
    download(new Blob([bytesOf(message)]), `${page.name}-${FILE_NAMES[kindOf(message)]}`);
  });
  byId("message-edit").addEventListener("click", () => openCopy(opened.message));

  /** Do something with the message; if that worked, it is gone from where it was, so close. */
  function onClick(id, work) {
    byId(id)?.addEventListener("click", async () => {
      const mine = opened;
      if (!(await work(mine)) || opened !== mine) return;
      finish(true);
      dialog.close();
    });
  }
  onClick("message-move", ({ position, message }) => actions.moveOne(parentOf(page.name), position, message));
  onClick("message-remove", ({ position, message, held }) => {
    if (held) return actions.removeDelayed(held.id, held.place);
    return actions.remove(position, { preview: message, bytes: bytesOf(message).length });
  });
  onClick("message-back", ({ taken, held }) => {
    if (held) return actions.release(held.id);
    actions.putBack([taken]);
    return true;
  });
  onClick("message-later", async ({ held }) => {
    const options = await askRelease();
    return options && actions.release(held.id, options);
  });
  return { openMessage };
}
