// The graph of a run, and pages that wait for an audit. Everything that came from somewhere is text, never markup.
const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 264;
const HEIGHT = 62;
const GAP = 22;
const BETWEEN = 74;

/** An element of SVG with attributes and children. */
function drawn(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, String(value));
  made.append(...children);
  return made;
}

function cut(text, most) {
  const letters = Array.from(text);
  return letters.length > most ? `${letters.slice(0, most - 1).join("")}…` : text;
}

/** Control and direction characters as their escapes, as the server writes them. */
function shown(text) {
  return text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (each) => `\\u${each.codePointAt(0).toString(16).padStart(4, "0")}`);
}

function address(query) {
  return `/lineage/run?${new URLSearchParams(Object.entries(query).map(([name, value]) => [name, String(value)]))}`;
}

function nameOf(node) {
  const name = node.activity_type || node.who || node.workflow_id || "";
  return node.times > 1 && node.kind !== "mixed" ? `${shown(name)} ×${node.times.toLocaleString()}` : shown(name);
}

function box(node, x, y, width) {
  const detail = shown(node.label || (node.activity_type ? node.who || node.workflow_id : "") || "");
  const most = Math.floor((width - 26) / 7.1);
  const group = drawn(
    "g",
    { class: `node tone-${node.tone}`, transform: `translate(${x} ${y})` },
    drawn("rect", { class: "box", width, height: HEIGHT, rx: 6 }),
    drawn("rect", { class: "stripe", width: 5, height: HEIGHT - 12, x: 6, y: 6, rx: 2.5 }),
    drawn("text", { class: "small", x: 19, y: 17 }, cut(node.heading, most + 4)),
    drawn("text", { class: "name", x: 19, y: 35 }, cut(nameOf(node), most)),
    drawn("text", { class: "small", x: 19, y: 52 }, cut(detail, most + 4)),
    drawn("title", {}, `${node.heading}: ${nameOf(node)}${detail ? `, ${detail}` : ""}`),
  );
  if (!node.href) return group;
  const link = drawn("a", { href: address(node.href) }, group);
  link.setAttribute("aria-label", `${node.heading}: ${nameOf(node)}${detail ? `, ${detail}` : ""}`);
  return link;
}

/** Where each node stands: columns where there is room, one column where there is not. */
function places(nodes, room) {
  const steps = (node) => ["activity", "child", "message", "mixed"].includes(node.kind);
  const column = (node) => {
    if (steps(node)) return 2;
    if (node.kind === "run") return 1;
    if (node.kind === "link") return node.side === "after" ? 1 : 0;
    return 0;
  };
  const wide = room >= 3 * WIDTH + 2 * BETWEEN;
  const width = wide ? WIDTH : Math.max(Math.min(room, 420), 220);
  const down = [0, 0, 0];
  const found = new Map();
  if (!wide) {
    const order = [
      ...nodes.filter((node) => !steps(node) && node.kind !== "run" && node.side !== "after"),
      ...nodes.filter((node) => node.kind === "run"),
      ...nodes.filter(steps),
      ...nodes.filter((node) => node.side === "after"),
    ];
    order.forEach((node, index) => found.set(node.number, { x: 0, y: index * (HEIGHT + GAP) }));
    return { found, width, wide, size: [width, order.length * (HEIGHT + GAP) - GAP] };
  }
  for (const node of nodes) {
    const at = column(node);
    found.set(node.number, { x: at * (WIDTH + BETWEEN), y: down[at] });
    down[at] += HEIGHT + GAP;
  }
  return { found, width, wide, size: [3 * WIDTH + 2 * BETWEEN, Math.max(...down) - GAP] };
}

function line(from, to, width) {
  const middle = HEIGHT / 2;
  if (from.x === to.x) {
    const [x, y1, y2] = [from.x + 24, from.y + HEIGHT, to.y];
    if (y2 > y1) return `M ${x} ${y1} V ${y2 - 3}`;
    return `M ${x + 14} ${from.y} V ${to.y + HEIGHT + 3}`;
  }
  const [x1, x2] = from.x < to.x ? [from.x + width, to.x - 3] : [from.x, to.x + width + 3];
  const half = (x1 + x2) / 2;
  return `M ${x1} ${from.y + middle} C ${half} ${from.y + middle}, ${half} ${to.y + middle}, ${x2} ${to.y + middle}`;
}

function draw(place, graph) {
  const room = place.clientWidth - 28;
  const { found, width, size } = places(graph.nodes, room);
  const marker = drawn(
    "marker",
    { id: "arrow", viewBox: "0 0 8 8", refX: 6, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto-start-reverse" },
    drawn("path", { class: "head", d: "M 0 0 L 8 4 L 0 8 z" }),
  );
  const canvas = drawn(
    "svg",
    { width: size[0] + 4, height: size[1] + 4, viewBox: `-2 -2 ${size[0] + 4} ${size[1] + 4}`, role: "group" },
    drawn("defs", {}, marker),
  );
  canvas.setAttribute("aria-labelledby", "graph-told");
  for (const edge of graph.edges) {
    const d = line(found.get(edge.from), found.get(edge.to), width);
    canvas.append(drawn("path", { class: "edge-line", d, "marker-end": "url(#arrow)" }));
  }
  for (const node of graph.nodes) {
    const at = found.get(node.number);
    canvas.append(box(node, at.x, at.y, width));
  }
  place.replaceChildren(canvas);
}

async function asked(url) {
  const answer = await fetch(url, { headers: { Accept: "application/json" } });
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.text || body.title || "The console does not answer.");
  return body;
}

async function graph(place) {
  try {
    const told = await asked(place.dataset.graph);
    draw(place, told);
    let before = place.clientWidth;
    new ResizeObserver(() => {
      if (Math.abs(place.clientWidth - before) < 40) return;
      before = place.clientWidth;
      draw(place, told);
    }).observe(place);
  } catch (error) {
    document.getElementById("graph-state").textContent = `The graph could not be drawn: ${error.message}`;
  }
}

async function waiting(place) {
  const doing = document.getElementById("doing");
  for (let pause = 700; ; pause = Math.min(pause * 1.3, 4000)) {
    await new Promise((done) => setTimeout(done, pause));
    try {
      const told = await asked(place.dataset.state);
      if (told.state === "audited") break;
      document.getElementById("read").value = told.events;
      doing.textContent = told.label;
    } catch (error) {
      doing.textContent = error.message;
      return;
    }
  }
  location.reload();
}

const canvas = document.getElementById("graph");
if (canvas) graph(canvas);
const wait = document.getElementById("waiting");
if (wait) waiting(wait);
const again = document.querySelector("[data-again]");
if (again) setTimeout(() => location.reload(), Number(again.dataset.again));
