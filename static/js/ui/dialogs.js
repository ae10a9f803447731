import { focusList } from "./dom.js";

/**
 * Common to all dialogs: how they close, messages for invalid fields, and protection against pressing a button twice.
 */
export function mountDialogs({ t }) {
  // The event of a close comes a moment later, when the dialog may be open again.
  addEventListener("close", (event) => event.target.open && event.stopImmediatePropagation(), true);
  for (const button of document.querySelectorAll("dialog .close")) {
    button.addEventListener("click", () => button.closest("dialog").close());
  }
  for (const dialog of document.querySelectorAll("dialog")) {
    closeOnOutsideClick(dialog);
    dialog.addEventListener("close", () => {
      // The element that had the focus before may be gone.
      if (document.activeElement === document.body) focusList();
    });
  }
  explainInvalid(t);
  ignoreRepeats();
}

/** Say why a field is invalid in the page's language, not in the browser's. */
function explainInvalid(t) {
  const clear = (field) => field.setCustomValidity?.("");
  addEventListener("invalid", ({ target }) => {
    clear(target);
    const { valueMissing, patternMismatch } = target.validity;
    const key = valueMissing ? "invalid.missing" : patternMismatch ? "error.bad_name" : "error.bad_parameter";
    target.setCustomValidity(t(key));
  }, true);
  addEventListener("input", ({ target }) => clear(target), true);
  // The page may have filled a field since.
  addEventListener("click", ({ target }) => [...(target.closest("button")?.form?.elements ?? [])].forEach(clear), true);
}

/** Close a dialog on a click outside it, but not on a drag that begins or ends inside, such as selecting text. */
function closeOnOutsideClick(dialog) {
  const isOutside = ({ target, clientX: x, clientY: y }) => {
    const { left, right, top, bottom } = dialog.getBoundingClientRect();
    return target === dialog && (x < left || x > right || y < top || y > bottom);
  };
  let pressedOutside = false;
  dialog.addEventListener("pointerdown", (event) => {
    pressedOutside = isOutside(event);
  });
  dialog.addEventListener("click", (event) => {
    if (pressedOutside && isOutside(event)) dialog.close();
  });
}

/** Ignore the second click of a double click on buttons marked data-once, and Enter held down on any button. */
function ignoreRepeats() {
  addEventListener("click", (event) => {
    if (event.detail > 1 && event.target.closest("[data-once]")) {
      event.preventDefault();
      event.stopPropagation();
    }
  }, true);
  addEventListener("keydown", (event) => {
    if (event.repeat && event.key === "Enter" && event.target.closest("button")) event.preventDefault();
  }, true);
}
