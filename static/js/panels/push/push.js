import { newKey } from "../../actions/idempotency.js";
import { bytesOf, linesOf } from "../../text/format.js";
import { byId, session } from "../../ui/dom.js";
import { mountPending } from "./pending.js";

/** The push box. Its content survives a reload, which switching the language is too. */
export function mountPush(app, files) {
  const { notices, page } = app;
  const [text, each, front, delay] = [byId("push-text"), byId("push-each"), byId("push-front"), byId("push-delay")];
  const draftKey = `draft:${page.name}`;
  let filled = session.get(draftKey, {}); // the push that the page last put into the box

  /** Return the push in the box. If it was not edited, it keeps its key, so that it is pushed once. */
  function read() {
    const seconds = Math.min(Math.max(0, Number(delay.value)), Number(delay.max));
    const now = { typed: text.value, lines: each.checked, front: front.checked, delay: seconds };
    const same = Object.entries(now).every(([name, value]) => filled[name] === value);
    return { ...now, key: (same && filled.key) || newKey() };
  }

  function fill(push) {
    filled = push;
    text.value = push.typed ?? "";
    each.checked = push.lines ?? false;
    front.checked = push.front ?? false;
    delay.value = push.delay || "";
    save();
  }

  /** Return whether a message is too large for the server. Its bytes are counted only if its length leaves a doubt. */
  function isTooLarge({ typed, lines }) {
    const limit = page.max_message_bytes;
    return (lines ? linesOf(typed) : [typed]).some((one) => one.length * 3 > limit && bytesOf(one).length > limit);
  }

  function save() {
    const push = read();
    front.disabled = push.delay > 0; // a delayed message cannot be put in front
    delay.disabled = push.front;
    session.set(draftKey, push);
  }

  fill(filled);
  const pending = mountPending(app, { read, fill, focus: () => text.focus() }, files);
  for (const input of [text, each, front, delay]) input.addEventListener("input", save);

  byId("push-form").addEventListener("submit", (event) => {
    event.preventDefault();
    text.focus();
    const push = read();
    if (isTooLarge(push)) notices.fail({ code: "message_too_large" });
    else if (push.typed) {
      fill({ lines: push.lines }); // the box is free at once for the next message
      pending.send(push);
    } else if (!pending.isSending()) notices.fail({ code: "empty_message" });
  });
  text.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    if (!event.repeat) byId("push-form").requestSubmit();
  });
}
