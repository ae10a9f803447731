/** Helpers for the document. */

/** @param {string} id */
export const byId = (id) => document.getElementById(id);

/** Return a copy of the only element in a template. @param {string} id */
export const clone = (id) => byId(id).content.firstElementChild.cloneNode(true);

/** Set a text if it has changed, so that screen readers announce it once and the layout is not recomputed. */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Set the title of the page, which ends with the server's LABEL. @param {string} text */
export function writeTitle(text) {
  const label = byId("label");
  document.title = label ? `${text} – ${label.textContent}` : text;
}

/**
 * Focus the list. The focus goes there when the focused element disappears, so that it never falls back to the body.
 */
export const focusList = () => byId("viewport").focus({ preventScroll: true });

/** Focus an element, unless the visitor has moved the focus to something visible outside of `from`. */
export function refocus(element, from) {
  const now = document.activeElement;
  const isLost = !now || now === document.body || now === byId("viewport") || now.disabled || now.closest("[hidden]");
  if (!isLost && !from?.contains(now)) return;
  element.focus();
  if (document.activeElement !== element) focusList(); // it may be disabled
}

/** Open a dialog; resolves with the value of the button that closed it, "" if it was cancelled. */
export function openDialog(dialog) {
  answers.get(dialog)?.(""); // it was closed just now, and its event is still to come
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((answer) => {
    answers.set(dialog, answer);
    dialog.addEventListener("close", () => answer(dialog.returnValue), { once: true });
  });
}
const answers = new WeakMap(); // dialog -> the function that resolves its last promise

/** The tab's storage, which outlives reloads. It can be full or forbidden: then `set` returns false. */
export const session = {
  get(key, otherwise) {
    try {
      return JSON.parse(sessionStorage.getItem(key)) ?? otherwise;
    } catch {
      return otherwise;
    }
  },
  set(key, value) {
    try {
      sessionStorage.setItem(key, JSON.stringify(value));
      return true;
    } catch {
      return false;
    }
  },
};
