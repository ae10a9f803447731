import { write } from "./dom.js";

/**
 * Set up a field for the name of a queue: it suggests the existing names, and `hint` says that a name is new, in case
 * it is a typing error. Returns a function that fills the field.
 */
export function mountNameField(input, hint, { suggestNames, isName, t }) {
  let known = null; // the names of all queues, null until they are loaded

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
