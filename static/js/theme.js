// Runs before the first paint on every page, so it is not a module. It applies the theme that the visitor has chosen.
(() => {
  const root = document.documentElement;
  root.dataset.script = ""; // for style sheets: scripts run
  const system = matchMedia("(prefers-color-scheme: dark)");
  const shown = () => root.dataset.theme ?? (system.matches ? "dark" : "light");
  const home = new URL("../../", document.currentScript.src).pathname.slice(0, -1) || "/"; // or a sub-path
  let theme = null;
  try {
    theme = localStorage.getItem("theme");
  } catch {
    // Storage can be forbidden. Then the system's theme applies.
  }
  if (theme === "light" || theme === "dark") root.dataset.theme = theme;

  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const label = () => {
      button.title = shown() === "dark" ? button.dataset.light : button.dataset.dark;
      button.setAttribute("aria-label", button.title);
    };
    label();
    system.addEventListener("change", label);
    button.addEventListener("click", () => {
      const [next, systemTheme] = [shown() === "dark" ? "light" : "dark", system.matches ? "dark" : "light"];
      if (next === systemTheme) delete root.dataset.theme;
      else root.dataset.theme = next;
      label();
      try {
        if (next === systemTheme) localStorage.removeItem("theme");
        else localStorage.setItem("theme", next);
      } catch {
        // Then the choice applies to this page only.
      }
    });
    document.getElementById("language").addEventListener("change", (event) => {
      document.cookie = `lang=${event.target.value}; Path=${home}; Max-Age=31536000; SameSite=Lax`;
      location.reload();
    });
    // Signing out leaves no messages in the browser. A listener added now runs after the page has saved its messages.
    document.getElementById("logout")?.addEventListener("submit", () => {
      addEventListener("pagehide", () => {
        sessionStorage.clear();
        for (const key of Object.keys(localStorage)) if (key.startsWith("recent:")) localStorage.removeItem(key);
      });
    });
  });
})();
