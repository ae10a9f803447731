import { sharedStorage } from "../../state/recent.js";
import { byId } from "../../ui/dom.js";

/**
 * The list of keyboard shortcuts, opened by its button, or by "?" outside text fields. The key can be switched off, as
 * speech input can type it by accident (WCAG 2.1.4).
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
    const isTyping = event.target.closest("input, textarea, select") !== null;
    if (event.key !== "?" || !key.checked || isTyping || document.querySelector("dialog[open]")) return;
    event.preventDefault();
    dialog.showModal();
  });
}
