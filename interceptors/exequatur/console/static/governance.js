// Decisions as they happen. Everything that a record says is hostile: it only ever becomes text.
import { write } from "/static/times.js";

const MOST = 300;
const table = document.getElementById("decisions");
const body = table.tBodies[0];
const isPublic = table.dataset.public === "yes";
const state = document.getElementById("state");
const dot = document.getElementById("dot");
const pause = document.getElementById("pause");
const empty = document.getElementById("empty");
const held = document.getElementById("held");
const lost = document.getElementById("lost");
const svg = document.getElementById("minutes");
let paused = false;
let waiting = [];
let missed = 0;
let drawnMinutes = null;

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = shown(text);
  return made;
}

/** Text with control, direction and invisible characters written as escapes, as the server writes them. */
function shown(text) {
  return String(text).replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}]/gu, (one) => {
    const code = one.codePointAt(0);
    return code > 0xffff ? `\\U${code.toString(16).padStart(8, "0")}` : `\\u${code.toString(16).padStart(4, "0")}`;
  });
}

/** Seconds since 1970 in ISO 8601; empty for what is no time of a calendar, as the server has it. */
function iso(seconds) {
  const at = new Date(seconds === null ? NaN : seconds * 1000);
  return at >= new Date("0001-01-01T00:00:00Z") && at.getUTCFullYear() < 10000 ? at.toISOString() : "";
}

function cell(row, label, className) {
  const made = element("td", className);
  made.dataset.label = label;
  row.append(made);
  return made;
}

function link(path, query) {
  const asked = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) if (value !== "" && value != null) asked.set(name, value);
  const made = element("a");
  made.href = `${path}?${asked}`;
  return made;
}

function outcome(into, one) {
  if (one.kind === "receipt") {
    into.append(element("span", "tag notice", "receipt"), " ", element("span", "small soft", one.shadow));
    return;
  }
  if (one.kind === "shadow") {
    into.append(element("span", "tag unproven", `would ${one.outcome}`));
    return;
  }
  const [className, text] = { allow: ["good", "allowed"], deny: ["violation", "denied"] }[one.outcome] ?? [
    "unchecked",
    "refused",
  ];
  into.append(element("span", `tag ${className}`, text));
  if (one.outcome !== "allow" && !one.enforced) {
    const observed = element("span", "tag notice", "observed");
    observed.title = "Only observed: nothing was kept from happening";
    into.append(" ", observed);
  }
}

function drawn(one) {
  const row = element("tr");
  const time = element("time");
  write(time, iso(one.at));
  const at = cell(row, "Time", "num nowrap");
  if (isPublic) at.append(time);
  else {
    const leads = link("/governance/decision", { log: one.log, index: one.index });
    leads.append(time);
    at.append(leads);
  }
  outcome(cell(row, "Outcome"), one);
  const action = cell(row, "Activity or action");
  action.append(element("span", "hostile strong", one.action));
  if (one.attempt > 1) action.append(" ", element("span", "small soft", `attempt ${one.attempt}`));
  cell(row, "Principal", "hostile").textContent = shown(one.principal);
  const workflow = cell(row, "Workflow", "hostile");
  if (one.workflow_id && !isPublic) {
    const leads = link("/lineage", { workflow: one.workflow_id, run: one.run_id });
    leads.textContent = shown(one.workflow_id);
    workflow.append(leads);
  } else workflow.textContent = shown(one.workflow_id);
  const because = cell(row, "Because of", "hostile");
  for (const name of one.policies) because.append(element("code", "", name), " ");
  if (one.reason) {
    because.append(element("span", "soft small", one.reason.length > 160 ? `${one.reason.slice(0, 160)}…` : one.reason));
  }
  return row;
}

function show(rows) {
  const newest = rows.slice(-MOST);
  const fragment = document.createDocumentFragment();
  for (const one of newest.reverse()) fragment.append(drawn(one));
  body.prepend(fragment);
  while (body.rows.length > MOST) body.lastElementChild.remove();
  empty.hidden = body.rows.length > 0;
  if (body.rows.length >= MOST) held.textContent = `The newest ${MOST} are listed; older ones are found by filtering.`;
}

function count(counts) {
  for (const [name, value] of Object.entries(counts)) {
    const tile = document.querySelector(`[data-count="${CSS.escape(name)}"]`);
    if (tile) tile.textContent = name === "rate" ? value.toFixed(1) : value.toLocaleString();
  }
  if (counts.minutes) plot(counts.minutes);
}

function shape(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function plot(minutes) {
  drawnMinutes = minutes;
  const [width, height, left, foot] = [Math.max(240, svg.clientWidth), 120, 44, 18];
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const most = Math.max(1, ...minutes.map(([, ...each]) => each[0] + each[1] + each[2]));
  const step = (width - left) / minutes.length;
  const fragment = document.createDocumentFragment();
  fragment.append(shape("line", { x1: left, x2: width, y1: height - foot, y2: height - foot, class: "axis" }));
  fragment.append(shape("text", { x: left - 6, y: 12, "text-anchor": "end" }, most.toLocaleString()));
  fragment.append(shape("text", { x: left - 6, y: height - foot, "text-anchor": "end" }, "0"));
  minutes.forEach(([at, ...each], index) => {
    let top = height - foot;
    ["allow", "deny", "none"].forEach((name, place) => {
      const tall = (each[place] / most) * (height - foot - 6);
      if (!tall) return;
      top -= tall;
      fragment.append(
        shape("rect", { x: left + index * step + 1, y: top, width: Math.max(1, step - 2), height: tall, class: name }),
      );
    });
    if (index % (width < 600 ? 30 : 15) === 0 || index === minutes.length - 1) {
      const clock = new Date(at * 1000).toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit" });
      const end = index === minutes.length - 1;
      fragment.append(
        shape("text", { x: end ? width : left + index * step, y: height - 4, "text-anchor": end ? "end" : "start" }, clock),
      );
    }
  });
  const all = minutes.reduce((sum, [, ...each]) => sum + each[0] + each[1] + each[2], 0);
  svg.setAttribute("aria-label", `Decisions in each of the last 60 minutes: ${all.toLocaleString()}, at most ${most} a minute`);
  svg.replaceChildren(fragment);
}

function say(text, live) {
  state.textContent = text;
  dot.classList.toggle("off", !live);
}

function lostSay() {
  // What a batch leaves out is older than what the table holds; what was lost was never seen here.
  if (!missed) return;
  const many = `${missed.toLocaleString()} decisions were gone before this page read them`;
  lost.firstElementChild.textContent = `${many}. They are counted above and are in the evidence.`;
  lost.hidden = false;
}

pause.addEventListener("click", () => {
  paused = !paused;
  pause.setAttribute("aria-pressed", String(paused));
  pause.textContent = paused ? "Go on" : "Pause";
  if (!paused) {
    show(waiting);
    waiting = [];
  }
  say(paused ? "Paused" : "Live", !paused);
});

for (const each of document.querySelectorAll("#filter select")) {
  each.addEventListener("change", () => each.form.requestSubmit());
}
document.getElementById("filter").addEventListener("submit", (event) => {
  // Deep links without empty parts.
  event.preventDefault();
  const asked = new URLSearchParams();
  for (const [name, value] of new FormData(event.target)) if (value.trim()) asked.set(name, value.trim());
  location.assign(asked.size ? `/governance?${asked}` : "/governance");
});

addEventListener("resize", () => drawnMinutes && plot(drawnMinutes));
try {
  plot(JSON.parse(svg.dataset.minutes));
} catch {
  // Drawn when the first counts come.
}

const asked = new URLSearchParams(location.search);
asked.set("after", table.dataset.place);
const source = new EventSource(`/governance/events?${asked}`);
pause.hidden = false;
source.addEventListener("open", () => say(paused ? "Paused" : "Live", !paused));
source.addEventListener("error", () => {
  if (source.readyState === EventSource.CLOSED) say("Not followed any more: reload the page", false);
  else say("The console does not answer; trying again", false);
});
source.addEventListener("ended", (event) => {
  source.close();
  say(`${JSON.parse(event.data).title}: reload the page`, false);
});
source.addEventListener("batch", (event) => {
  const batch = JSON.parse(event.data);
  if (batch.rows) {
    if (batch.fresh) {
      body.replaceChildren();
      waiting = [];
    }
    missed += batch.lost;
    lostSay();
    if (paused) {
      waiting = [...waiting, ...batch.rows].slice(-MOST);
      say(`Paused; ${waiting.length >= MOST ? `${MOST} or more` : waiting.length} new`, false);
    } else show(batch.rows);
  }
  if (batch.counts) count(batch.counts);
});
