import { byId } from "../../ui/dom.js";
import { sharedStorage } from "../../state/recent.js";

/**
 * The list of keyboard shortcuts, by its button or by "?" anywhere but in a text field. The key can be switched off, as
 * speech input may type it (WCAG 2.1.4).
 */
export function mountHelp() {
  const [dialog, key, storage] = [byId("help"), byId("help-key"), sharedStorage()];
  key.checked = storage?.getItem("help-key") !== "off";
  key.addEventListener("change", () => storage?.setItem("help-key", key.checked ? "on" : "off"));
  if (/Mac|iPhone|iPad/.test(navigator.platform)) {
    for (const control of document.querySelectorAll("[data-control]")) control.textContent = "⌘";
  }
  byId("help-open").addEventListener("click", () => dialog.showModal());
  addEventListener("keydown", (event) => {
    if (event.key !== "?" || !key.checked || event.target.closest("input, textarea, select") || document.querySelector("dialog[open]")) return;
    event.preventDefault();
    dialog.showModal();
  });
}
