// The address says what is looked at: which run, which policy file, which event and change. So a link, a reload and
// "back" show it again.

const NAMES = ["sandbox", "run", "file", "event", "change"];

/** What the address says, by name; what it does not say is null. */
export function asked() {
  const query = new URLSearchParams(location.search);
  return Object.fromEntries(NAMES.map((name) => [name, query.get(name)]));
}

/** The address of something on this page. What is null is left out; what is not named stays as it is. */
export function addressOf(changes) {
  const query = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === undefined) query.delete(name);
    else query.set(name, value);
  }
  const text = query.toString();
  return location.pathname + (text ? `?${text}` : "") + location.hash;
}

/** Puts it in the address bar; `quietly` without a new entry to go back from. */
export function goTo(changes, quietly = false) {
  const address = addressOf(changes);
  if (address === location.pathname + location.search + location.hash) return;
  history[quietly ? "replaceState" : "pushState"](null, "", address);
}

/** Puts nothing but the page in the address bar. */
export function forget() {
  goTo(Object.fromEntries(NAMES.map((name) => [name, null])), true);
}
