// Draws the plots from the table of minutes, and keeps the page up to date.
import { localize } from "/static/times.js";

const SVG = "http://www.w3.org/2000/svg";
const EVERY = 3000;
const HEIGHT = 190;
const LEFT = 44;
const BOTTOM = 20;
const TOP = 8;
const RIGHT = 6;
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const said = document.getElementById("said");

function make(name, attributes, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  element.append(...children);
  return element;
}

/** The numbers of the table, the oldest minute first. */
function minutes() {
  return [...document.querySelectorAll("#minutes tbody tr")].map((row) => {
    const found = { at: Number(row.dataset.at) * 1000, kinds: {} };
    for (const cell of row.querySelectorAll("td")) {
      const value = cell.textContent === "" ? null : Number(cell.textContent);
      if (cell.classList.contains("kind")) found.kinds[cell.dataset.of] = value;
      else found[cell.dataset.of] = value;
    }
    return found;
  });
}

/** A round number that is not below another, and the steps up to it. */
function scale(largest) {
  if (!(largest > 0)) return { top: 1, steps: [0, 1] };
  const size = 10 ** Math.floor(Math.log10(largest / 3));
  const step = [1, 2, 5, 10].map((each) => each * size).find((each) => each * 4 >= largest);
  const top = Math.ceil(largest / step - 1e-9) * step;
  const steps = [];
  for (let at = 0; at <= top + step / 2; at += step) steps.push(Number(at.toPrecision(6)));
  return { top, steps };
}

/** An empty plot with its axes; `place` has the functions that turn numbers into places. */
function axes(figure, rows, largest, unit, label) {
  const { top, steps } = scale(largest);
  const width = Math.max(240, Math.round(figure.querySelector(".drawing").clientWidth));
  const slot = (width - LEFT - RIGHT) / rows.length;
  const place = {
    slot,
    x: (index) => LEFT + slot * (index + 0.5),
    y: (value) => HEIGHT - BOTTOM - (value / top) * (HEIGHT - BOTTOM - TOP),
  };
  const svg = make("svg", { class: "plot", viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": label });
  for (const step of steps) {
    const y = place.y(step);
    svg.append(make("line", { class: "axis", x1: LEFT, x2: width - RIGHT, y1: y, y2: y }));
    svg.append(make("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" }, `${step}${step === top ? unit : ""}`));
  }
  rows.forEach((row, index) => {
    if ((rows.length - 1 - index) % 5) return;
    const last = index === rows.length - 1;
    const where = { x: last ? width - RIGHT : place.x(index), y: HEIGHT - 4, "text-anchor": last ? "end" : "middle" };
    svg.append(make("text", where, last ? "now" : clock.format(row.at)));
  });
  return { svg, place };
}

/** Columns over the whole plot that say what is below the pointer. */
function columns(svg, rows, place, figure, tell) {
  const readout = figure.querySelector(".readout");
  rows.forEach((row, index) => {
    const column = make(
      "rect",
      { class: "column", x: place.x(index) - place.slot / 2, y: TOP, width: place.slot, height: HEIGHT - BOTTOM - TOP },
      make("title", {}, `${clock.format(row.at)}: ${tell(row)}`),
    );
    column.addEventListener("pointerenter", () => {
      readout.textContent = `${clock.format(row.at)}: ${tell(row)}`;
    });
    svg.append(column);
  });
  svg.addEventListener("pointerleave", () => {
    readout.textContent = tell(null);
  });
  readout.hidden = false;
  readout.textContent = tell(null);
}

function show(figure, svg) {
  figure.querySelector(".drawing").replaceChildren(svg);
}

const shown = (value) => (value === null ? "none" : `${value >= 100 ? Math.round(value) : value} ms`);

function drawLatency(rows) {
  const figure = document.getElementById("latency-plot");
  const known = rows.filter((row) => row.p99 !== null);
  const lately = known.at(-1);
  const { svg, place } = axes(
    figure,
    rows,
    Math.max(0, ...known.map((row) => row.p99)),
    " ms",
    lately ? `Latency of the gate; lately p50 ${shown(lately.p50)}, p99 ${shown(lately.p99)}` : "No latency yet",
  );
  for (const name of ["p99", "p95", "p50"]) {
    let path = "";
    rows.forEach((row, index) => {
      if (row[name] === null) return;
      const goes = index > 0 && rows[index - 1][name] !== null ? "L" : "M";
      path += `${goes}${place.x(index).toFixed(1)} ${place.y(row[name]).toFixed(1)}`;
      const alone = goes === "M" && (index === rows.length - 1 || rows[index + 1][name] === null);
      if (alone) svg.append(make("circle", { class: `dot ${name}`, cx: place.x(index), cy: place.y(row[name]), r: 3 }));
    });
    if (path) svg.append(make("path", { class: `line ${name}`, d: path }));
  }
  columns(svg, rows, place, figure, (row) => {
    const of = row ?? lately;
    if (!of) return "Nothing was decided in these minutes.";
    if (of.p50 === null) return "nothing was decided";
    return `p50 ${shown(of.p50)}, p95 ${shown(of.p95)}, p99 ${shown(of.p99)}, of ${of.decisions} decisions`;
  });
  show(figure, svg);
}

function drawErrors(rows) {
  const figure = document.getElementById("errors-plot");
  const names = [...document.querySelectorAll("#minutes thead th")].slice(5).map((each) => each.textContent);
  const sum = (row) => Object.values(row.kinds).reduce((one, other) => one + other, 0);
  const all = rows.reduce((total, row) => total + sum(row), 0);
  const label = all ? `Refusals and errors: ${all} in ${rows.length} minutes` : "No refusals and no errors";
  const { svg, place } = axes(figure, rows, Math.max(0, ...rows.map(sum)), "", label);
  rows.forEach((row, index) => {
    let below = 0;
    for (const [kind, number] of Object.entries(row.kinds)) {
      if (!number) continue;
      const y = place.y(below + number);
      const height = Math.max(place.y(below) - y - 0.75, 0.75);
      const width = place.slot * 0.62;
      svg.append(make("rect", { class: `kind-${kind}`, x: place.x(index) - width / 2, y, width, height, rx: 1.5 }));
      below += number;
    }
  });
  columns(svg, rows, place, figure, (row) => {
    if (!row) return all ? `${all} in ${rows.length} minutes.` : "None in these minutes.";
    const told = Object.values(row.kinds).map((number, index) => (number ? `${names[index]} ${number}` : ""));
    return `${told.filter(Boolean).join(", ") || "none"}, of ${row.decisions} decisions`;
  });
  show(figure, svg);
}

let drawn = "";
function draw() {
  const rows = minutes();
  const now = `${innerWidth} ${JSON.stringify(rows)}`;
  if (now === drawn || rows.length === 0) return;
  drawn = now;
  drawLatency(rows);
  drawErrors(rows);
}

const freshness = document.getElementById("freshness");
/** What each part was when it came from the server, before times were written in the viewer's zone. */
const came = new Map();
/** Takes over what has changed, and leaves alone what has not: who reads there is not disturbed. */
function take(page) {
  for (const part of document.querySelectorAll("[data-live]")) {
    const next = page.getElementById(part.id);
    const text = next?.outerHTML;
    if (!next || came.get(part.id) === text) continue;
    came.set(part.id, text);
    if (part.id === "verdict" && part.dataset.state !== next.dataset.state) {
      said.textContent = next.textContent.replace(/\s+/g, " ").trim();
    }
    const focused = part.contains(document.activeElement) ? document.activeElement.id : "";
    const placed = document.importNode(next, true);
    part.replaceWith(placed);
    localize(placed);
    if (focused) document.getElementById(focused)?.focus();
  }
  const fresh = page.getElementById("freshness");
  if (fresh) {
    freshness.replaceChildren(...[...fresh.childNodes].map((each) => document.importNode(each, true)));
    freshness.querySelector(".live-dot")?.classList.remove("off");
    localize(freshness);
  }
  draw();
}

function lost(why) {
  freshness.querySelector(".live-dot")?.classList.add("off");
  const note = freshness.querySelector(".lost") ?? document.createElement("strong");
  note.className = "lost";
  note.textContent = ` · not up to date: ${why}`;
  freshness.append(note);
}

let timer = 0;
async function refresh() {
  clearTimeout(timer);
  if (!document.hidden) {
    try {
      const answer = await fetch("/health", { headers: { Accept: "text/html" }, signal: AbortSignal.timeout(10_000) });
      if (answer.redirected || !answer.ok) {
        lost(answer.status === 401 || answer.redirected ? "your session has ended; load the page again" : `the console answers ${answer.status}`);
      } else {
        take(new DOMParser().parseFromString(await answer.text(), "text/html"));
      }
    } catch {
      lost("the console does not answer");
    }
  }
  clearTimeout(timer);
  timer = setTimeout(refresh, EVERY);
}

draw();
freshness.querySelector(".live-dot")?.classList.remove("off");
timer = setTimeout(refresh, EVERY);
addEventListener("resize", draw);
document.addEventListener("visibilitychange", refresh);
