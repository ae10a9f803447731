import { newKey } from "../../actions/idempotency.js";
import { headOf, linesOf, oneLine, timeOf } from "../../text/format.js";
import { byId, clone, session } from "../../ui/dom.js";

const MAX_LINES = 1000; // pushed in one request, all or none; more go as a stream
const MAX_CARD_CHARACTERS = 400;

/**
 * Pending pushes, and those that failed. They are sent one after another to keep their order. If one fails, it returns
 * to the box if that is empty, and the ones behind it wait below the box. A reload loses none of them.
 *
 * @typedef {{typed: string, lines: boolean, front: boolean, delay: number, key: string}} Push
 *     typed: the text; lines: whether each line is a message; delay: seconds; key: makes it safe to send it again
 * @param {{read: () => Push, fill: (push: Push) => void, focus: () => void}} box
 * @param {{pushStream: (blob: Blob, name: string) => Promise<number>}} files
 */
export function mountPending({ actions, notices, page, t }, box, files) {
  const storageKey = `pending:${page.name}`;
  const sending = []; // the first one is being sent
  const unsent = [];

  const save = () => session.set(storageKey, [...sending, ...unsent]);

  function send(push) {
    sending.push(push);
    save();
    if (sending.length === 1) sendAll();
  }

  async function sendAll() {
    while (sending.length) {
      const [push] = sending;
      const rest = await (push.lines ? sendLines(push) : sendOne(push));
      if (rest === "") sending.shift();
      else {
        if (rest !== push.typed) Object.assign(push, { typed: rest, key: newKey() });
        hold(sending.splice(0));
      }
      save();
    }
  }

  // --- sending; each function resolves with the part of the text that was not pushed

  const sendOne = async (push) => ((await pushNow(push.typed, 1, push)) ? "" : push.typed);

  async function sendLines(push) {
    const lines = linesOf(push.typed);
    // A stream can be neither put in front nor delayed.
    if (lines.length > MAX_LINES && !push.front && !push.delay) {
      const pushed = await files.pushStream(new Blob([push.typed]), t("push.label"));
      return lines.slice(pushed).join("\n");
    }
    if (lines.length) return (await pushNow(lines, lines.length, push)) ? "" : push.typed;
    notices.fail({ code: "empty_message" });
    return push.typed;
  }

  async function pushNow(message, count, { front, delay, key }) {
    const answer = await actions.push(message, { front, delay, key });
    const time = timeOf(Date.now() + (delay ?? 0) * 1000, page.language);
    if (answer) notices.say(delay ? t("pushed.later", { n: count, time }) : t("pushed", { n: count }));
    return Boolean(answer);
  }

  // --- failed pushes

  function hold(pushes) {
    const waiting = [...pushes];
    if (waiting.length && !box.read().typed) box.fill(waiting.shift());
    unsent.push(...waiting);
    draw();
  }

  function draw() {
    byId("unsent").replaceChildren(...unsent.map(cardOf));
  }

  function cardOf(push) {
    const card = clone("unsent-template");
    card.querySelector(".preview").textContent = headOf(oneLine(push.typed), MAX_CARD_CHARACTERS);
    const buttons = { again: () => send(push), edit: () => edit(push), discard: () => discard(push) };
    for (const [name, action] of Object.entries(buttons)) {
      card.querySelector(`.${name}`).addEventListener("click", () => {
        unsent.splice(unsent.indexOf(push), 1);
        action();
        draw();
        save();
        box.focus();
      });
    }
    return card;
  }

  /** Exchange a failed push with the content of the box. */
  function edit(push) {
    const before = box.read();
    box.fill(push);
    if (before.typed) unsent.unshift(before);
  }

  function discard(push) {
    function undo() {
      hold([push]);
      save();
    }
    notices.say(t("discarded"), { text: t("undo"), action: undo });
  }

  hold(session.get(storageKey, []));
  save();
  return { send, isSending: () => sending.length > 0 };
}
