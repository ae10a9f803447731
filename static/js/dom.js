/** What the panels share about the document. */

/** @param {string} id */
export const at = (id) => document.getElementById(id);

/** A copy of a template's one element. @param {string} id */
export const clone = (id) => at(id).content.firstElementChild.cloneNode(true);

/** Write a text only where it changed, so that screen readers say it once and the page is not laid out again. */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
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
