import { parentOf } from "../../state/names.js";
import { deliveriesOf, untilOf } from "../../text/deliveries.js";
import { bytesOf, headOf, hexOf, indented, kindOf, piecesOf, sizeOf } from "../../text/format.js";
import { summaryOf } from "../../text/summaries.js";
import { byId, write } from "../../ui/dom.js";
import { download } from "../../ui/saving.js";

const MAX_SHOWN_CHARACTERS = 100_000; // the rest is shown on request, as the layout of a long text is slow
const PART_CHARACTERS = 10_000; // of the rest, laid out together
const CLOCK_INTERVAL_MS = 1000; // how often the remaining time is updated
const FIRST_VIEWS = { json: "json", text: "text", bytes: "hex" }; // by kind
const FILE_NAMES = { json: "message.json", text: "message.txt", bytes: "message.bin" };
const IN_HAND_TITLES = { pop: "popped", remove: "removed", reserve: "reserved" };

/** Return the beginning of a text: whole lines, unless the first is longer than `length`. */
function linesUpTo(text, length) {
  const head = headOf(text, length);
  return head === text ? head : head.slice(0, head.lastIndexOf("\n") + 1 || head.length);
}

/** Yield a text in blocks, so that the browser lays out only the visible ones: a megabyte takes seconds. */
function* partsOf(text) {
  for (let rest = text; rest; ) {
    const part = linesUpTo(rest, PART_CHARACTERS);
    yield Object.assign(document.createElement("span"), { className: "part", textContent: part });
    rest = rest.slice(part.length);
  }
}

/** One whole message: formatted, as text or as hexadecimal, with its deliveries and the actions on it. */
export function mountMessage({ client, page, actions, notices, t, n }, askRelease, openCopy) {
  const dialog = byId("message");
  const [body, rest] = [byId("message-body"), byId("message-rest")];
  const buttons = dialog.querySelectorAll("[data-view]");
  /** The open message: {message, position?, inHand?, inFlight?: {kind, id, place?, deadline, deliveries}, ...} */
  let opened = null;
  let hiddenText = "";
  let finish = () => {};

  /**
   * Open a waiting message, by its position and preview, a message `inHand`, or one that is reserved or delayed
   * (`inFlight`: {kind, id, place}). Resolves once it is closed, with true if an action has removed the message
   * from there.
   */
  async function openMessage({ position, preview, inHand, inFlight }) {
    const found = inHand ?? (await (inFlight ? readInFlight(inFlight) : actions.read(position, preview)));
    if (!found) return false;
    const { deadline, deliveries } = found;
    const reservation = inFlight ? { ...inFlight, deadline, deliveries } : inHand && reservationOf(inHand);
    opened = { ...found, inHand, inFlight: reservation };
    const kind = kindOf(opened.message);
    showDeliveries();
    write(byId("message-summary"), summaryOf(opened, page.language));
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

  const readInFlight = ({ kind, id, place }) => actions.readInFlight(kind, id, place);

  /** Return the reservation of a message in hand; undefined if it has none or its lease has ended. */
  function reservationOf({ how, reservation, until, deliveries }) {
    if (how !== "reserve" || until < Date.now()) return undefined;
    return { kind: "reserved", id: reservation, deadline: (until + client.clockOffset) / 1000, deliveries };
  }

  function titleOf({ position, inHand, inFlight }) {
    if (inHand) return t(IN_HAND_TITLES[inHand.how]);
    return inFlight ? t(inFlight.kind) : t("message.title", { position: n(position + 1) });
  }

  /** Show the actions that are possible on this message. */
  function offer({ inHand, inFlight }) {
    const isWaiting = !inHand && !inFlight;
    if (parentOf(page.name)) byId("message-move").hidden = !isWaiting;
    byId("message-back").hidden = !inFlight && (!inHand || inHand.how === "reserve");
    byId("message-later").hidden = !inFlight;
    byId("message-remove").hidden = !isWaiting && inFlight?.kind !== "delayed";
  }

  /** Show the message's deliveries, its last failure, and how long it stays reserved or delayed. */
  function showDeliveries() {
    const texts = { t, language: page.language, max: page.max_deliveries };
    const { inFlight } = opened;
    const until = inFlight && untilOf(inFlight, Date.now() + client.clockOffset, texts);
    const deliveries = deliveriesOf(inFlight ? { ...opened, deliveries: 0 } : opened, texts);
    write(byId("message-history"), [until, deliveries].filter(Boolean).join(" · "));
  }
  setInterval(() => opened?.inFlight && showDeliveries(), CLOCK_INTERVAL_MS);

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

  // --- actions

  byId("message-copy").addEventListener("click", (event) => {
    const { message } = opened;
    notices.copy(typeof message === "string" ? message : message.base64, event.currentTarget);
  });
  byId("message-download").addEventListener("click", () => {
    const { message } = opened;
    download(new Blob([bytesOf(message)]), `${page.name}-${FILE_NAMES[kindOf(message)]}`);
  });
  byId("message-edit").addEventListener("click", () => openCopy(opened.message));

  /** Perform an action on the message; if it succeeds, the message is no longer where it was, so close. */
  function onClick(id, work) {
    byId(id)?.addEventListener("click", async () => {
      const mine = opened;
      if (!(await work(mine)) || opened !== mine) return;
      finish(true);
      dialog.close();
    });
  }
  onClick("message-move", ({ position, message }) => actions.moveOne(parentOf(page.name), position, message));
  onClick("message-remove", ({ position, message, inFlight }) => {
    if (inFlight) return actions.removeDelayed(inFlight.id, inFlight.place);
    return actions.remove(position, { preview: message, bytes: bytesOf(message).length });
  });
  onClick("message-back", ({ inHand, inFlight }) => {
    if (inFlight) return actions.release(inFlight.id);
    actions.putBack([inHand]);
    return true;
  });
  onClick("message-later", async ({ inFlight }) => {
    const options = await askRelease();
    return options && actions.release(inFlight.id, options);
  });
  return { openMessage };
}
