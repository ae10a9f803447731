import { at, clone } from "../dom.js";

/** Short messages in the corner; `fail` tells what went wrong until it is dismissed, `say` what went well for a while. */
export function mountNotices({ failure, t }) {
  const corner = at("toasts");
  at("said").textContent = "";

  function show(text, role, more) {
    const toast = clone("toast-template");
    toast.setAttribute("role", role);
    toast.classList.add(role);
    const close = () => toast.remove();
    toast.querySelector(".close").addEventListener("click", close);
    const [link, act] = [toast.querySelector(".link"), toast.querySelector(".act")];
    link.hidden = !more?.href;
    act.hidden = !more?.act;
    if (more?.href) link.href = more.href;
    link.textContent = act.textContent = more?.text ?? "";
    act.addEventListener("click", () => {
      close();
      more.act();
    });
    // A modal dialog covers everything else, so the notice goes into it.
    const dialog = document.querySelector("dialog[open]");
    (dialog ?? corner).append(toast);
    dialog?.addEventListener("close", () => toast.isConnected && corner.append(toast), { once: true });
    while (corner.children.length > 3) corner.firstElementChild.remove();
    toast.querySelector(".text").textContent = text;
    return toast;
  }

  return {
    /** @param {string} text @param {{text: string, href?: string, act?: () => void}} [more] a link or a button beside it */
    say(text, more) {
      const toast = show(text, "status", more);
      setTimeout(() => toast.remove(), more ? 15_000 : 5000);
    },
    /** @param {{code: string, message?: string}} error @param {string} [what] failed; then it is told until dismissed */
    fail(error, what) {
      const text = what ? `${what}: ${failure(error)}` : failure(error);
      const same = [...document.querySelectorAll(".toast.alert .text")].find((one) => one.textContent === text);
      same?.parentElement.remove();
      show(text, "alert").classList.toggle("kept", Boolean(what));
      console.info(`${error.code ?? error.name}: ${error.message}`);
    },
    /** Forget what went wrong before: something has worked since. */
    clear: () => document.querySelectorAll(".toast.alert:not(.kept)").forEach((toast) => toast.remove()),
    async copy(text, button) {
      const before = button.textContent;
      if (!(await copied(text))) return void show(t("copy.failed"), "alert");
      at("said").textContent = t("copied");
      button.textContent = t("copied");
      setTimeout(() => {
        button.textContent = before;
        at("said").textContent = "";
      }, 1500);
    },
  };
}

/** Copy a text. Browsers give the clipboard to https and localhost only; elsewhere the old way works. */
async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const before = document.activeElement;
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "visually-hidden";
    (document.querySelector("dialog[open]") ?? document.body).append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    before?.focus();
    return done;
  }
}
