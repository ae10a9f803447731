import { byId } from "../dom.js";

/** The list of keyboard shortcuts, by its button or by "?" anywhere but in a text field. */
export function mountHelp() {
  const dialog = byId("help");
  if (/Mac|iPhone|iPad/.test(navigator.platform)) {
    for (const key of document.querySelectorAll("[data-control]")) key.textContent = "⌘";
  }
  byId("help-open").addEventListener("click", () => dialog.showModal());
  addEventListener("keydown", (event) => {
    if (event.key !== "?" || event.target.closest("input, textarea, select") || document.querySelector("dialog[open]")) return;
    event.preventDefault();
    dialog.showModal();
  });
}
