import { byId, clone, focusList } from "./dom.js";

const MAX_NOTICES = 3; // in the corner
const NOTICE_MS = 5000;
const NOTICE_WITH_BUTTON_MS = 15_000;
const COPIED_MS = 1500;

/** Notices in the corner: `fail` shows an error until it is dismissed, `say` shows a success for a while. */
export function mountNotices({ failure, t }) {
  const corner = byId("toasts");
  const spoken = byId("spoken");
  spoken.textContent = "";

  let from = null; // the element that had the focus before a notice

  /** Remove a notice; the focus returns to where it was. */
  function end(toast) {
    const hadFocus = toast.contains(document.activeElement);
    toast.remove();
    if (!hadFocus) return;
    from?.focus();
    if (document.activeElement === document.body) focusList();
  }

  function show(text, role, extra) {
    const toast = clone("toast-template");
    toast.setAttribute("role", role);
    toast.classList.add(role);
    const close = () => end(toast);
    toast.querySelector(".close").addEventListener("click", close);
    toast.addEventListener("focusin", ({ relatedTarget }) => {
      if (!toast.contains(relatedTarget)) from = relatedTarget;
    });
    const [link, button] = [toast.querySelector(".link"), toast.querySelector(".action")];
    link.hidden = !extra?.href;
    button.hidden = !extra?.action;
    if (extra?.href) link.href = extra.href;
    link.textContent = extra?.text ?? "";
    button.textContent = extra?.label ?? extra?.text ?? "";
    button.addEventListener("click", () => {
      close();
      extra.action();
    });
    place(toast);
    while (corner.children.length > MAX_NOTICES) corner.firstElementChild.remove();
    toast.querySelector(".text").textContent = text;
    return toast;
  }

  /** Put a notice into the corner, or into the open dialog, which covers everything else. */
  function place(toast) {
    const dialog = document.querySelector("dialog[open]");
    (dialog ?? corner).append(toast);
    dialog?.addEventListener("close", () => toast.isConnected && place(toast), { once: true });
  }

  return {
    /**
     * @param {string} text
     * @param {{text: string, href?: string, action?: () => void, label?: string}} [extra] a link or a button; with
     *     both, `label` is the button's
     */
    say(text, extra) {
      const same = [...document.querySelectorAll(".toast.status .text")].find((one) => one.textContent === text);
      if (!extra?.action && same) end(same.parentElement);
      const toast = show(text, "status", extra);
      const time = extra ? NOTICE_WITH_BUTTON_MS : NOTICE_MS;
      // It stays while in use: a button must not disappear under the pointer or while it has the focus.
      const expire = () => (toast.matches(":hover, :focus-within") ? setTimeout(expire, time) : toast.remove());
      setTimeout(expire, time);
    },
    /** Say something after a time. @returns {() => void} call it to cancel or remove the notice */
    sayAfter(milliseconds, text) {
      let toast = null;
      const timer = setTimeout(() => {
        toast = show(text, "status");
      }, milliseconds);
      return () => {
        clearTimeout(timer);
        toast?.remove();
      };
    },
    /**
     * @param {{code: string, message?: string}} error
     * @param {string} [subject] what failed; with it, `clear` leaves the notice
     */
    fail(error, subject) {
      const text = subject ? `${subject}: ${failure(error)}` : failure(error);
      const same = [...document.querySelectorAll(".toast.alert .text")].find((one) => one.textContent === text);
      same?.parentElement.remove();
      show(text, "alert").classList.toggle("kept", Boolean(subject));
      console.info(`${error.code ?? error.name}: ${error.message}`);
    },
    /** Announce to screen readers what the page shows without a notice. */
    speak(text) {
      spoken.textContent = text;
    },
    /** Remove errors: something has worked since. */
    clear: () => document.querySelectorAll(".toast.alert:not(.kept)").forEach(end),
    async copy(text, button) {
      const before = button.textContent;
      if (!(await copyText(text))) return void show(t("copy.failed"), "alert");
      spoken.textContent = t("copied");
      button.textContent = t("copied");
      setTimeout(() => {
        button.textContent = before;
        spoken.textContent = "";
      }, COPIED_MS);
    },
  };
}

/** Copy a text; resolves with whether that worked. Browsers offer the clipboard only on https and localhost. */
async function copyText(text) {
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
