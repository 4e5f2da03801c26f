// Times in the viewer's zone, with UTC beside them.
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;

/** Writes a time of ISO 8601 into an element, in the viewer's zone. */
export function write(element, iso) {
  const at = new Date(iso);
  if (Number.isNaN(at.getTime())) {
    element.textContent = "unknown";
    return;
  }
  const today = new Date().toDateString() === at.toDateString();
  const utc = iso.slice(0, 19).replace("T", " ");
  element.dateTime = iso;
  element.title = `${full.format(at)} (${zone}), ${utc} UTC`;
  element.replaceChildren((today ? clock : full).format(at));
  const beside = document.createElement("span");
  beside.className = "utc";
  beside.textContent = ` ${today ? utc.slice(11) : utc} UTC`;
  element.append(beside);
}

/** Does so for all times below an element that were not written yet. */
export function localize(root = document) {
  for (const each of root.querySelectorAll("time[data-local]")) {
    each.removeAttribute("data-local");
    write(each, each.dateTime);
  }
}

localize();
