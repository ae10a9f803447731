import { newKey } from "../../actions/idempotency.js";
import { parentOf } from "../../state/names.js";
import { byId } from "../../ui/dom.js";
import { mountNameField } from "../../ui/nameField.js";

const MAX_EDITED_CHARACTERS = 200_000; // a field is slow with a longer text

/** Push a copy of a message, edited or not, to this queue or another one. */
export function mountCopying({ actions, notices, page, isName, t }, suggestNames) {
  const [dialog, text, to] = [byId("copying"), byId("copying-text"), byId("copying-to")];
  const fillName = mountNameField(to, byId("copying-new"), { suggestNames, isName, t });
  let message = "";
  let original = ""; // the text of the field at first
  let attempt = {}; // {request, key} of the last push, so that the same push can be repeated safely

  /**
   * Open the dialog; for a dead letter, it offers the queue that it came from.
   * @param {import("../../client/types.js").Message} copied
   */
  function openCopy(copied) {
    message = copied;
    attempt = {};
    const isEdited = typeof message === "string" && message.length <= MAX_EDITED_CHARACTERS;
    text.value = isEdited ? message : "";
    original = text.value;
    text.hidden = !isEdited;
    byId("copying-whole").hidden = isEdited;
    fillName(parentOf(page.name) ?? page.name);
    dialog.showModal();
    (isEdited ? text : to).focus();
    text.setSelectionRange(0, 0);
    text.scrollTop = 0;
  }

  /** Return the message to push: byte for byte if it was not edited. A field turns all line ends into LF. */
  function copy() {
    if (text.value === original) return message;
    return message.includes("\r\n") ? text.value.replaceAll("\n", "\r\n") : text.value;
  }

  dialog.querySelector("form").addEventListener("submit", async (event) => {
    event.preventDefault();
    if (!isName(to.value)) return void notices.fail({ code: "bad_name" });
    const request = JSON.stringify([to.value, copy()]);
    if (attempt.request !== request) attempt = { request, key: newKey() };
    if (await actions.pushCopy(to.value, copy(), attempt.key)) dialog.close();
  });
  return { openCopy };
}
