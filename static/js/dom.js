/** What the panels share about the document. */

/** @param {string} id */
export const at = (id) => document.getElementById(id);

/** A copy of a template's one element. @param {string} id */
export const clone = (id) => at(id).content.firstElementChild.cloneNode(true);

/** Write a text only where it changed, so that screen readers say it once and the page is not laid out again. */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Give the focus to an element, unless it is somewhere else by now than on what is gone or in `from`. */
export function refocus(element, from) {
  const now = document.activeElement;
  if (!now || now === document.body || now.disabled || now.closest("[hidden]") || from?.contains(now)) element.focus();
}

/** Open a dialog; resolves with the value of the button that closed it, "" when it was cancelled. */
export function ask(dialog) {
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((done) => dialog.addEventListener("close", () => done(dialog.returnValue), { once: true }));
}

/** What the tab remembers over a reload; storage can be full or forbidden, then it remembers less. */
export const memory = {
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
