import { deliveriesOf, untilOf } from "../../text/deliveries.js";
import { oneLine } from "../../text/format.js";
import { byId, clone, write } from "../../ui/dom.js";

const MAX_SHOWN = 100; // cards; the others are only counted
const MAX_PREVIEW_CHARACTERS = 200;
const CLOCK_INTERVAL_MS = 1000; // how often the remaining time is updated
const RELOAD_DELAY_MS = 250; // the list is read at most this often, however fast the queue changes

/**
 * The dialog that lists all reserved messages, or the delayed ones. It follows the queue while it is open.
 *
 * @typedef {{element: HTMLElement, one: import("../../client/types.js").InFlight}} Card
 */
export function mountInFlight(app, openMessage, askRelease) {
  const { client, store, actions, failure, curl, showCommand, page, t } = app;
  const [dialog, list, status] = [byId("held"), byId("held-list"), byId("held-status")];
  const cards = new Map(); // id -> Card
  let kind = "reserved"; // or "delayed"
  let shownVersion = -1;
  let timer = 0;

  for (const one of ["reserved", "delayed"]) byId(`${one}-open`).addEventListener("click", () => open(one));

  function open(which) {
    kind = which;
    list.replaceChildren();
    cards.clear();
    status.textContent = "";
    write(byId("held-title"), t(`inFlight.${kind}`));
    dialog.showModal();
    byId("held-title").focus();
    showCommand(curl[kind]());
    load();
  }

  // --- reading

  function update({ version }) {
    if (dialog.open && version !== shownVersion) loadSoon();
  }

  function loadSoon() {
    timer ||= setTimeout(load, RELOAD_DELAY_MS);
  }

  async function load() {
    clearTimeout(timer);
    timer = 0;
    shownVersion = store.state.version;
    const wanted = kind;
    try {
      const { messages, count } = await client[wanted]({ limit: MAX_SHOWN, preview: MAX_PREVIEW_CHARACTERS });
      if (dialog.open && wanted === kind) show(messages, count);
    } catch (error) {
      write(status, failure(error));
    }
  }

  // --- drawing

  function show(messages, count) {
    const rest = count - messages.length;
    if (count === 0) write(status, t(`inFlight.${kind}.none`));
    else write(status, rest > 0 ? t("inFlight.rest", { n: rest, shown: messages.length }) : "");
    const present = new Set(messages.map(({ id }) => id));
    for (const id of cards.keys()) if (!present.has(id)) drop(id);
    let before = list.firstElementChild;
    for (const one of messages) {
      const { element } = cards.get(one.id) ?? add(one);
      // The focused card stays where it is in the document: moving it would lose the focus.
      if (element === before) before = element.nextElementSibling;
      else if (!element.contains(document.activeElement)) list.insertBefore(element, before);
      cards.set(one.id, { element, one });
      fill(cards.get(one.id));
    }
  }

  /** Remove a card; the focus moves on to the next one. */
  function drop(id) {
    const { element } = cards.get(id);
    if (element.contains(document.activeElement)) {
      const neighbour = element.nextElementSibling ?? element.previousElementSibling;
      (neighbour?.querySelector("button:not([hidden])") ?? byId("held-title")).focus();
    }
    element.remove();
    cards.delete(id);
  }

  function add(one) {
    const element = clone("held-template");
    element.dataset.id = one.id;
    const isDelayed = kind === "delayed";
    for (const name of ["ack", "extend"]) element.querySelector(`.${name}`).hidden = isDelayed;
    element.querySelector(".remove-delayed").hidden = !isDelayed;
    return { element, one };
  }

  /** @param {Card} card */
  function fill({ element, one }) {
    write(element.querySelector(".preview"), oneLine(one.preview));
    write(element.querySelector(".history"), deliveriesOf({ ...one, deliveries: 0 }, { t, language: page.language }));
    showTime({ element, one });
  }

  function showTime({ element, one }) {
    const texts = { t, language: page.language, max: page.max_deliveries };
    write(element.querySelector(".until"), untilOf({ ...one, kind }, Date.now() + client.clockOffset, texts));
  }
  setInterval(() => dialog.open && cards.forEach(showTime), CLOCK_INTERVAL_MS);

  // --- actions

  const placeOf = (id) => [...cards.keys()].indexOf(id);
  const buttons = {
    open: ({ id }) => openMessage({ inFlight: { kind, id, place: placeOf(id) } }),
    release: ({ id }) => actions.release(id),
    extend: ({ id }) => actions.extend(id, Number(byId("take-lease").value || byId("take-lease").defaultValue)),
    ack: ({ id }) => actions.ack(id),
    "remove-delayed": ({ id }) => actions.removeDelayed(id, placeOf(id)),
    async later({ id }) {
      const options = await askRelease();
      if (options) await actions.release(id, options);
    },
  };
  list.addEventListener("click", async (event) => {
    const button = event.target.closest("button");
    const card = cards.get(button?.closest(".message-card").dataset.id);
    const name = Object.keys(buttons).find((className) => button?.classList.contains(className));
    if (!card || !name) return;
    await buttons[name](card.one);
    loadSoon(); // an extension changes no count, so the stream does not report it
  });
  return { update };
}
