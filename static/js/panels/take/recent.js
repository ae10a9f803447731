import { headOf, oneLine, timeOf } from "../../text/format.js";
import { byId, clone, write } from "../../ui/dom.js";

const MAX_CARD_CHARACTERS = 400;

/** The messages recently popped or removed in this browser that are no longer in hand; they can still be put back. */
export function mountRecent({ store, recent, actions, notices, page, n }, openMessage) {
  const [details, list] = [byId("recent"), byId("recent-list")];
  let shown = []; // the entries of the list

  function update() {
    const present = new Set(store.state.inHand.map(({ key }) => key));
    const entries = recent.list().filter(({ key }) => !present.has(key));
    details.hidden = entries.length === 0;
    write(byId("recent-count"), n(entries.length));
    if (!details.open || entries.map(({ key }) => key).join() === shown.map(({ key }) => key).join()) return;
    const hadFocus = list.contains(document.activeElement);
    shown = entries;
    list.replaceChildren(...entries.map(cardOf));
    if (hadFocus) (details.hidden ? byId("pop") : details.querySelector("summary")).focus();
  }

  function cardOf(entry) {
    const { message, key, time } = entry;
    const card = clone("recent-template");
    const one = { ...entry, id: key, how: "pop" };
    write(card.querySelector(".time"), timeOf(time, page.language));
    write(card.querySelector(".preview"), headOf(oneLine(message), MAX_CARD_CHARACTERS));
    card.querySelector(".open").addEventListener("click", () => openMessage({ inHand: one }));
    card.querySelector(".back").addEventListener("click", () => actions.putBack([one]));
    card.querySelector(".copy").addEventListener("click", (event) => {
      notices.copy(typeof message === "string" ? message : message.base64, event.currentTarget);
    });
    return card;
  }

  details.addEventListener("toggle", update);
  addEventListener("storage", update); // another tab has changed the storage
  return { update };
}
