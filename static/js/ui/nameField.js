import { write } from "./dom.js";
import { isName } from "../state/names.js";

/**
 * A field for a queue's name: it suggests the names there are, and `hint` says while one is typed that it is new, as that
 * may be a typing error. Returns a function that fills it.
 */
export function mountNameField(input, hint, { suggestNames, t }) {
  let known = null; // the names of all queues, null until they are known

  function showNew() {
    const isNew = known && isName(input.value) && !known.includes(input.value);
    write(hint, isNew ? t("move.new") : "");
  }
  input.addEventListener("input", showNew);

  return async function fill(name) {
    input.value = name;
    known = null;
    showNew();
    known = await suggestNames();
    showNew();
  };
}
