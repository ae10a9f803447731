import { addInHand } from "../../state/inHand.js";
import { headOf, oneLine } from "../../text/format.js";
import { byId, clone, refocus, session, write } from "../../ui/dom.js";

const CLOCK_INTERVAL_MS = 1000; // how often the remaining time of reservations is updated
const MAX_CARD_CHARACTERS = 400;
const MAX_SPOKEN_CHARACTERS = 100;
const LABELS = { pop: "popped", remove: "removed", reserve: "reserved" };
const LEASE_BUTTONS = ["ack", "release", "extend", "later"];

/** Pop and reserve. The messages in hand stay on the page and can be put back with one button. */
export function mountTake({ store, actions, notices, page, t, n }, openMessage, askRelease) {
  const cards = new Map(); // id -> element
  const list = byId("taken");
  const storageKey = `inHand:${page.name}`;
  const optionsKey = `options:${page.name}`;
  store.change(addInHand, session.get(storageKey, []).toReversed());

  // --- pop and reserve

  let stop = null; // ends the wait in progress
  const fields = ["take-max", "take-wait", "take-lease"].map(byId);
  for (const [i, value] of session.get(optionsKey, []).entries()) fields[i].value = value;
  for (const field of fields) {
    field.addEventListener("change", () => session.set(optionsKey, fields.map(({ value }) => value)));
  }

  /** Return the number in a field, corrected to its limits. */
  function numberIn(id) {
    const input = byId(id);
    const value = Math.min(Math.max(Number(input.min), Math.round(Number(input.value) || 0)), Number(input.max));
    if (input.value !== String(value)) input.value = value;
    return value;
  }

  async function take(how) {
    if (stop) return;
    const [most, wait] = [numberIn("take-max"), numberIn("take-wait") || undefined];
    const options = { max: most > 1 ? most : undefined, wait };
    stop = new AbortController();
    byId("take-status").textContent = wait ? t("take.waiting") : "";
    byId("take-stop").hidden = !wait;
    const found = how === "pop"
      ? await actions.pop(options, stop.signal)
      : await actions.reserve({ lease: numberIn("take-lease"), ...options }, stop.signal);
    stop = null;
    refocus(byId("pop"), byId("take-stop"));
    byId("take-stop").hidden = true;
    byId("take-status").textContent = found && !found.length ? t("take.empty") : "";
    if (!found?.length) return;
    const what = found.length > 1 ? n(found.length) : headOf(oneLine(found[0].message), MAX_SPOKEN_CHARACTERS);
    notices.speak(`${t(LABELS[how])}: ${what}`);
    requestAnimationFrame(() => list.firstElementChild?.scrollIntoView({ block: "nearest" }));
  }

  byId("pop").addEventListener("click", () => take("pop"));
  byId("reserve").addEventListener("click", () => take("reserve"));
  byId("take-stop").addEventListener("click", () => stop?.abort());

  // --- actions on messages in hand

  const canGoBack = ({ how }) => how !== "reserve";

  async function putBack(messages) {
    await actions.putBack(messages);
    refocus(byId("pop"), byId("put-all-back"));
  }

  const buttons = {
    open: (one) => openMessage({ inHand: one }),
    copy: ({ message }, button) => notices.copy(typeof message === "string" ? message : message.base64, button),
    back: (one) => putBack([one]),
    ack: ({ reservation }) => actions.ack(reservation),
    release: ({ reservation }) => actions.release(reservation),
    extend: ({ reservation, lease }) => actions.extend(reservation, lease),
    async later({ reservation }) {
      const options = await askRelease();
      if (options) actions.release(reservation, options);
    },
    discard: actions.discard,
  };
  list.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    const id = Number(button?.closest(".message-card").dataset.id);
    const one = store.state.inHand.find((each) => each.id === id);
    const name = Object.keys(buttons).find((className) => button?.classList.contains(className));
    if (one && name) buttons[name](one, button);
  });
  byId("put-all-back").addEventListener("click", () => putBack(store.state.inHand.filter(canGoBack)));

  // --- drawing

  let saved = null; // the list that was last saved

  function update({ inHand }) {
    const present = new Set(inHand.map(({ id }) => id));
    for (const [id, card] of cards) {
      if (present.has(id)) continue;
      if (card.contains(document.activeElement)) byId("pop").focus();
      card.remove();
      cards.delete(id);
    }
    let before = list.firstElementChild;
    for (const one of inHand) {
      const card = cards.get(one.id);
      if (card) before = card.nextElementSibling;
      else list.insertBefore(addCard(one), before);
      showTime(one);
    }
    byId("put-all-back").hidden = inHand.filter(canGoBack).length < 2;
    if (saved !== inHand) save(inHand);
    saved = inHand;
  }

  function addCard({ id, how, message }) {
    const card = clone("taken-template");
    card.dataset.id = id;
    cards.set(id, card);
    write(card.querySelector(".how"), t(LABELS[how]));
    write(card.querySelector(".preview"), headOf(oneLine(message), MAX_CARD_CHARACTERS));
    const isReserved = how === "reserve";
    for (const name of LEASE_BUTTONS) card.querySelector(`.${name}`).hidden = !isReserved;
    card.querySelector(".back").hidden = isReserved;
    const discard = card.querySelector(".discard");
    discard.hidden = isReserved;
    if (isReserved) {
      discard.title = t("close"); // shown once the lease has ended: the message is in the queue again
      discard.setAttribute("aria-label", t("close"));
    }
    return card;
  }

  function showTime({ id, how, until, deliveries }) {
    if (how !== "reserve") return;
    const card = cards.get(id);
    const seconds = Math.ceil((until - Date.now()) / 1000);
    const isOver = seconds <= 0;
    const max = page.max_deliveries;
    const left = [t("inHand.left", { n: seconds }), t("inHand.deliveries", { n: deliveries, max })];
    const over = deliveries >= max ? "inHand.buried" : "inHand.over";
    write(card.querySelector(".left"), isOver ? t(over) : left.join(" · "));
    for (const name of LEASE_BUTTONS) card.querySelector(`.${name}`).hidden = isOver;
    card.querySelector(".discard").hidden = !isOver;
  }
  setInterval(() => store.state.inHand.forEach((one) => cards.has(one.id) && showTime(one)), CLOCK_INTERVAL_MS);

  // --- saving: a reload must not lose a message that is no longer in the queue

  let hasUnsaved = false; // a browser stores a few MB per tab; if that is too little, it asks before leaving the page
  addEventListener("beforeunload", (event) => hasUnsaved && event.preventDefault());

  /** Save as many of the newest messages as the storage can hold. */
  function save(inHand) {
    let count = inHand.length;
    while (count > 0 && !session.set(storageKey, inHand.slice(0, count))) count >>= 1;
    if (count === 0) session.set(storageKey, []);
    hasUnsaved = count < inHand.length;
  }
  return { update };
}
