import { newKey } from "../../actions/actions.js";
import { byId } from "../../ui/dom.js";
import { isName, parentOf } from "../../state/names.js";
import { mountNameField } from "../../ui/nameField.js";

const MAX_EDITED_CHARACTERS = 200_000; // laying out a longer text in a field takes long

/** Push a copy of a message, edited or as it is, to this queue or another one. */
export function mountCopying({ actions, notices, page, t }, suggestNames) {
  const [dialog, text, to] = [byId("copying"), byId("copying-text"), byId("copying-to")];
  const fillName = mountNameField(to, byId("copying-new"), { suggestNames, t });
  let message = "";
  let shown = ""; // what the field held at first
  let attempt = {}; // {request, key} of the last push: the same one can be repeated safely

  /** Ask; dead letters are offered the queue that they came from. @param {import("../../client/types.js").Message} original */
  function openCopy(original) {
    message = original;
    attempt = {};
    const isEdited = typeof message === "string" && message.length <= MAX_EDITED_CHARACTERS;
    text.value = isEdited ? message : "";
    shown = text.value;
    text.hidden = !isEdited;
    byId("copying-whole").hidden = isEdited;
    fillName(parentOf(page.name) ?? page.name);
    dialog.showModal();
    (isEdited ? text : to).focus();
    text.setSelectionRange(0, 0);
    text.scrollTop = 0;
  }

  /** Return what is to be pushed: the message byte for byte if nobody edited it. A field makes every line end LF. */
  function copy() {
    if (text.value === shown) return message;
    return message.includes("\r\n") ? text.value.replaceAll("\n", "\r\n") : text.value;
  }

  dialog.querySelector("form").addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!isName(to.value)) return void notices.fail({ code: "bad_name" });
    const request = JSON.stringify([to.value, copy()]);
    if (attempt.request !== request) attempt = { request, key: newKey() };
    if (await actions.pushTo(to.value, copy(), attempt.key)) dialog.close();
  });
  return { openCopy };
}
