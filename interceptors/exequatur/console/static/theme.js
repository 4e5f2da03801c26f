// Light or dark, as the viewer chose; runs before anything is drawn.
(() => {
  const root = document.documentElement;
  const key = "exequatur-theme";
  let chosen = null;
  try {
    chosen = localStorage.getItem(key);
  } catch {
    // Not remembered where the browser stores nothing.
  }
  if (chosen === "light" || chosen === "dark") root.dataset.theme = chosen;
  document.addEventListener("click", (event) => {
    if (!event.target.closest?.("#theme")) return;
    const dark = root.dataset.theme
      ? root.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    try {
      localStorage.setItem(key, root.dataset.theme);
    } catch {
      // See above.
    }
  });
})();
