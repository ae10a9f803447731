/** How every dialog closes, and protection against pressing a button twice. */
export function mountDialogs() {
  for (const button of document.querySelectorAll("dialog .close")) {
    button.addEventListener("click", () => button.closest("dialog").close());
  }
  for (const dialog of document.querySelectorAll("dialog")) closeOnOutsideClick(dialog);
  ignoreRepeats();
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
