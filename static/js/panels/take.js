import { at, clone, memory, refocus, write } from "../dom.js";
import { oneLine } from "../format.js";
import { changed, forgot, recalled, took } from "../state.js";

const PART = 1 << 20; // characters of messages that go back in one request, and one message more
const HOW = { pop: "popped", remove: "removed", reserve: "reserved" };

/** Pop and reserve; what was taken stays on screen, and goes back with one button. */
export function mountTake(app) {
  const { client, store, notices, page, t, curl } = app;
  const cards = new Map(); // id -> element
  const kept = `taken:${page.name}`;
  store.change(took, memory.get(kept, []).toReversed());
  let stop = null; // ends the wait that is under way

  const number = (id) => {
    const input = at(id);
    const given = Math.min(Math.max(Number(input.min), Math.round(Number(input.value) || 0)), Number(input.max));
    if (input.value !== String(given)) input.value = given;
    return given;
  };

  async function take(how) {
    if (stop) return;
    const [many, wait, lease] = [number("take-max"), number("take-wait") || undefined, number("take-lease")];
    const max = many > 1 ? many : undefined;
    stop = new AbortController();
    at("take-said").textContent = wait ? t("take.waiting") : "";
    at("take-stop").hidden = !wait;
    const { signal } = stop;
    const given = how === "pop" ? { max, wait } : { lease, max, wait };
    const found = await app.act(curl[how](given), () =>
      // A reservation comes back by itself if its answer was lost, so only pop needs to be sure of its own.
      how === "pop" ? app.once((key) => popped({ ...given, key }, signal)) : client.reserve({ ...given, signal }),
    );
    stop = null;
    refocus(at("pop"), at("take-stop"));
    at("take-stop").hidden = true;
    at("take-said").textContent = "";
    const list = [found].flat().filter((one) => one !== null && one !== undefined);
    if (found !== undefined && !list.length) at("take-said").textContent = t("take.empty");
    app.took(list.map((one) => (how === "pop" ? { how, message: one } : reserved(one, lease))));
    if (list.length) requestAnimationFrame(show);
  }

  /** Pop; a message that was on its way when the wait was stopped is asked for again. */
  const popped = (given, signal) =>
    client.pop({ ...given, signal }).catch((error) => {
      if (error.code !== "aborted") throw error;
      return client.pop({ max: given.max, key: given.key });
    });

  /** Bring what was just taken into view. */
  const show = () => at("taken").firstElementChild?.scrollIntoView({ block: "nearest" });

  /** By our own clock: it may differ from the server's, the length of the lease does not. */
  const reserved = ({ id, message, deliveries }, lease) => {
    return { how: "reserve", message, deliveries, reservation: id, lease, until: Date.now() + lease * 1000 };
  };

  at("pop").addEventListener("click", () => take("pop"));
  at("reserve").addEventListener("click", () => take("reserve"));
  at("take-stop").addEventListener("click", () => stop?.abort());

  // --- what was taken

  app.took = (found) => {
    if (found.length) store.change(took, found);
  };

  const going = new Set(); // ids of what is on its way back

  /** Put messages back, to be popped next, in the order in which they were taken: the newest first, in parts. */
  app.back = async (list) => {
    const mine = list.filter(({ id }) => !going.has(id));
    mine.forEach(({ id }) => going.add(id));
    let backed = 0;
    for (const part of partsOf(mine)) {
      const messages = part.toReversed().map(({ message }) => message);
      if (!(await app.push(messages.length === 1 ? messages[0] : messages, { next: true }))) break;
      for (const { id } of part) store.change(forgot, id);
      backed += part.length;
    }
    mine.forEach(({ id }) => going.delete(id));
    if (backed) notices.say(t("backed", { n: backed }));
    refocus(at("pop"), at("put-all-back"));
  };

  /** Split a list, in its order, into what goes in one request each. */
  function* partsOf(list) {
    for (let start = 0, end = 0; start < list.length; start = end) {
      for (let size = 0; end < Math.min(list.length, start + 1000) && size < PART; end += 1) {
        size += JSON.stringify(list[end].message).length;
      }
      yield list.slice(start, end);
    }
  }

  const canGoBack = ({ how }) => how !== "reserve";
  at("put-all-back").addEventListener("click", () => app.back(store.state.taken.filter(canGoBack)));

  at("taken").addEventListener("click", async (event) => {
    const button = event.target.closest("button");
    const one = store.state.taken.find(({ id }) => id === button?.closest(".took").card);
    if (!one) return;
    const verb = ["ack", "release", "extend", "back", "copy", "forget", "open"].find((name) => button.classList.contains(name));
    const { id, message, reservation, lease } = one;
    if (verb === "open") app.open({ taken: one });
    if (verb === "copy") notices.copy(typeof message === "string" ? message : message.base64, button);
    if (verb === "forget") {
      store.change(forgot, id);
      notices.say(t("forgot"), { text: t("undo"), act: () => store.change(recalled, one) });
    }
    if (verb === "back") app.back([one]);
    if (verb === "extend" && (await app.act(curl.extend(reservation, lease), () => client.extend(reservation, lease)))) {
      store.change(changed, id, { until: Date.now() + lease * 1000 });
      notices.say(t("extended", { n: lease }));
    }
    if (verb === "ack" && (await app.act(curl.ack(reservation), () => client.ack(reservation)))) {
      store.change(forgot, id);
      notices.say(t("acked"));
    }
    if (verb === "release") {
      const done = await app.act(curl.release(reservation), () => client.release(reservation));
      if (!done) return;
      store.change(forgot, id);
      if (done.dead) notices.say(t("buried"), { href: app.pageOf(`${page.name}.dead`), text: t("dead.open", { name: `${page.name}.dead` }) });
      else notices.say(t("backed", { n: 1 }));
    }
  });

  function update({ taken }) {
    const present = new Set(taken.map(({ id }) => id));
    for (const [id, card] of cards) {
      if (present.has(id)) continue;
      if (card.contains(document.activeElement)) at("pop").focus();
      card.remove();
      cards.delete(id);
    }
    let before = at("taken").firstElementChild;
    for (const one of taken) {
      let card = cards.get(one.id);
      if (!card) {
        card = clone("taken-template");
        card.card = one.id;
        cards.set(one.id, card);
        at("taken").insertBefore(card, before);
        write(card.querySelector(".how"), t(HOW[one.how]));
        write(card.querySelector(".preview"), oneLine(one.message).slice(0, 400));
        const held = one.how === "reserve";
        for (const name of ["ack", "release", "extend"]) card.querySelector(`.${name}`).hidden = !held;
        card.querySelector(".back").hidden = held;
        card.querySelector(".forget").hidden = held;
      } else before = card.nextElementSibling;
      time(card, one);
    }
    at("put-all-back").hidden = taken.filter(canGoBack).length < 2;
    if (update.kept !== taken) remember(taken);
    update.kept = taken;
  }

  let forgetful = false; // a browser keeps a few MB for a tab; if that is too little it asks before one leaves
  addEventListener("beforeunload", (event) => forgetful && event.preventDefault());

  /** A reload must not lose a message that is in the queue no more. */
  function remember(taken) {
    let most = taken.length;
    while (most >= 0 && !memory.set(kept, taken.slice(0, most))) most = most > 0 ? most >> 1 : -1;
    forgetful = most < taken.length;
  }

  function time(card, { how, until, deliveries }) {
    if (how !== "reserve") return;
    const left = Math.ceil((until - Date.now()) / 1000);
    const over = left <= 0;
    const text = over ? t("taken.over") : `${t("taken.left", { n: left })} · ${t("taken.deliveries", { n: deliveries })}`;
    write(card.querySelector(".left"), text);
    for (const name of ["ack", "release", "extend"]) card.querySelector(`.${name}`).hidden = over;
    card.querySelector(".forget").hidden = !over;
  }
  setInterval(() => store.state.taken.forEach((one) => cards.has(one.id) && time(cards.get(one.id), one)), 1000);
  return update;
}
