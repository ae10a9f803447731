// Runs before the first paint, on every page, so it is no module: the theme and the language that were chosen.
(() => {
  const root = document.documentElement;
  let theme = null;
  try {
    theme = localStorage.getItem("theme");
  } catch {
    // Storage can be forbidden; then the system's choice holds.
  }
  if (theme === "light" || theme === "dark") root.dataset.theme = theme;

  document.addEventListener("DOMContentLoaded", () => {
    document.getElementById("theme").addEventListener("click", () => {
      const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
      const next = (root.dataset.theme ?? system) === "dark" ? "light" : "dark";
      if (next === system) delete root.dataset.theme;
      else root.dataset.theme = next;
      try {
        if (next === system) localStorage.removeItem("theme");
        else localStorage.setItem("theme", next);
      } catch {
        // The choice then holds for this page only.
      }
    });
    document.getElementById("language").addEventListener("change", (event) => {
      document.cookie = `lang=${event.target.value}; Path=/; Max-Age=31536000; SameSite=Lax`;
      location.reload();
    });
    // Who signs out leaves no messages behind; this comes after what the page keeps as it goes.
    document.getElementById("logout")?.addEventListener("submit", () => {
      addEventListener("pagehide", () => sessionStorage.clear());
    });
  });
})();
