import { byId, write } from "../dom.js";
import { bytesOf, headOf, hexOf, indented, kindOf, piecesOf, sizeOf } from "../format.js";
import { historyOf } from "../history.js";

const MAX_SHOWN_CHARACTERS = 100_000; // the rest is shown on request: laying out text takes long
const PART_CHARACTERS = 10_000; // of the rest, laid out together
const FIRST_VIEWS = { json: "json", text: "text", bytes: "hex" }; // by kind
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

/** One whole message: formatted, as text, or as hexadecimal. */
export function mountMessage({ page, actions, notices, t, n }) {
  const dialog = byId("message");
  const [body, rest] = [byId("message-body"), byId("message-rest")];
  const buttons = dialog.querySelectorAll("[data-view]");
  let opened = null; // {message, position?, taken?}
  let hiddenText = "";

  /** Open a waiting message by its position and what is shown of it (`preview`), or one that was taken. */
  async function openMessage({ position: shownAt, preview, taken }) {
    const found = taken ?? (await actions.read(shownAt, preview));
    if (!found) return;
    const { message, position } = found;
    opened = { message, position, taken };
    const kind = kindOf(message);
    const history = taken ? "" : historyOf(found, { t, language: page.language });
    byId("message-history").hidden = history === "";
    write(byId("message-history"), history);
    write(byId("message-title"), taken ? t(TAKEN_TITLES[taken.how]) : t("message.title", { position: n(position + 1) }));
    const facts = [kind === "text" ? "" : t(`waiting.${kind}`), sizeOf(bytesOf(message).length, page.language)];
    write(byId("message-facts"), facts.filter(Boolean).join(" · "));
    byId("message-remove").hidden = Boolean(taken);
    byId("message-back").hidden = !taken || taken.how === "reserve";
    for (const button of buttons) {
      const { view } = button.dataset;
      button.hidden = (view === "json" && kind !== "json") || (view === "text" && kind === "bytes");
    }
    show(FIRST_VIEWS[kind]);
    if (!dialog.open) dialog.showModal();
    body.focus();
    body.scrollTop = 0;
  }

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
  });
  rest.addEventListener("click", () => {
    body.append(...partsOf(hiddenText));
    hiddenText = "";
    rest.hidden = true;
    body.focus();
  });
  byId("message-copy").addEventListener("click", (event) => {
    const { message } = opened;
    notices.copy(typeof message === "string" ? message : message.base64, event.currentTarget);
  });
  byId("message-remove").addEventListener("click", async () => {
    const { position, message } = opened;
    if (await actions.remove(position, { preview: message, bytes: bytesOf(message).length })) dialog.close();
  });
  byId("message-back").addEventListener("click", () => {
    const { taken } = opened;
    dialog.close();
    actions.putBack([taken]);
  });
  return { openMessage };
}
