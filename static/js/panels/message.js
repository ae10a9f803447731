import { at, write } from "../dom.js";
import { bytesOf, hexOf, indented, kindOf, piecesOf, sizeOf } from "../format.js";

const SHOWN = 100_000; // characters that are shown before one asks for the rest: laying out text takes long

/** One message, whole: formatted, as it is, or as hexadecimal. */
export function mountMessage(app) {
  const { client, notices, t, n, language } = app;
  const dialog = at("message");
  let shown = null; // {message, position?, taken?}

  /** Show a waiting message by its position, or one that was taken. */
  async function open({ position, taken }) {
    let message = taken?.message;
    if (!taken) {
      const answer = await app.act(app.curl.look(position), () => client.all({ offset: position, limit: 1 }));
      if (!answer) return;
      [message] = answer.messages;
      if (message === undefined) return notices.fail({ code: "stale" });
    }
    shown = { message, position, taken };
    const kind = kindOf(message);
    write(at("message-title"), taken ? t(taken.how === "pop" ? "popped" : taken.how === "remove" ? "removed" : "reserved") : t("message.title", { position: n(position + 1) }));
    const facts = [kind === "text" ? "" : t(`waiting.${kind}`), sizeOf(bytesOf(message).length, language)];
    write(at("message-facts"), facts.filter(Boolean).join(" · "));
    at("message-remove").hidden = Boolean(taken);
    at("message-back").hidden = !taken || taken.how === "reserve";
    for (const button of dialog.querySelectorAll("[data-look]")) {
      const { look } = button.dataset;
      button.hidden = (look === "json" && kind !== "json") || (look === "text" && kind === "bytes");
    }
    look({ json: "json", text: "text", bytes: "hex" }[kind]);
    if (!dialog.open) dialog.showModal();
    at("message-body").focus();
    at("message-body").scrollTop = 0;
  }

  function look(how) {
    for (const button of dialog.querySelectorAll("[data-look]")) {
      button.setAttribute("aria-pressed", String(button.dataset.look === how));
    }
    const { message } = shown;
    const text = how === "hex" ? hexOf(bytesOf(message)).lines : how === "json" ? indented(message) : message;
    at("message-body").replaceChildren(...(how === "json" ? coloured(text.slice(0, SHOWN)) : [text.slice(0, SHOWN)]));
    const rest = at("message-rest");
    rest.hidden = text.length <= SHOWN;
    rest.textContent = t("message.rest", { size: sizeOf(text.length - SHOWN, language) });
    rest.onclick = () => {
      at("message-body").append(text.slice(SHOWN));
      rest.hidden = true;
      at("message-body").focus();
    };
  }

  function* coloured(json) {
    for (const { text, kind } of piecesOf(json)) {
      yield kind ? Object.assign(document.createElement("span"), { className: kind, textContent: text }) : text;
    }
  }

  dialog.addEventListener("click", (event) => {
    const button = event.target.closest("[data-look]");
    if (button) look(button.dataset.look);
  });
  dialog.addEventListener("close", () => {
    at("message-body").textContent = "";
    shown = null;
  });
  at("message-copy").addEventListener("click", (event) => {
    const { message } = shown;
    notices.copy(typeof message === "string" ? message : message.base64, event.currentTarget);
  });
  at("message-remove").addEventListener("click", async () => {
    const { position, message } = shown;
    if (await app.remove(position, { preview: message, bytes: bytesOf(message).length })) dialog.close();
  });
  at("message-back").addEventListener("click", async () => {
    const { taken } = shown;
    dialog.close();
    await app.back([taken]);
  });
  return open;
}
