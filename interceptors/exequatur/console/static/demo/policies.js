// The editor of the policies: files, line numbers, what is wrong where, and what differs from the original.
import { asked, goTo } from "/static/demo/address.js";
import { byId, made, say, shown } from "/static/demo/elements.js";
import { get, post } from "/static/demo/server.js";

export class Policies {
  constructor(page) {
    this.page = page;
    this.files = [];
    this.texts = new Map();
    this.file = null;
    this.problems = [];
    this.changed = "";
    this.text = byId("text");
    this.text.addEventListener("input", () => {
      this.texts.set(this.file, this.text.value);
      this.problems = [];
      this.number();
      this.draw();
    });
    this.text.addEventListener("scroll", () => {
      byId("gutter").scrollTop = this.text.scrollTop;
    });
    this.text.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.send("/demo/apply");
    });
    byId("apply").addEventListener("click", () => this.send("/demo/apply"));
    byId("check").addEventListener("click", () => this.send("/demo/check"));
    byId("restore").addEventListener("click", () => this.restore());
    for (const chip of document.querySelectorAll("#rules [data-file]")) {
      chip.addEventListener("click", () => this.example(chip.dataset, chip.textContent));
    }
  }

  /** Loads the texts that are in force; what was edited and not put in force stays, unless all is anew. */
  async load(anew = false) {
    this.adopt(await get("/demo/policies.json"), anew);
  }

  adopt(answer, anew = false) {
    const kept = anew ? new Map() : this.edited();
    this.files = answer.files;
    this.texts = new Map(answer.files.map(({ name, text }) => [name, kept.get(name) ?? text]));
    if (anew) {
      this.problems = [];
      byId("checked").replaceChildren();
    }
    this.differs(answer.difference);
    this.file ??= asked().file;
    this.open(this.texts.has(this.file) ? this.file : (answer.files.find(({ name }) => name === "refunds.cedar") ?? answer.files[0]).name);
  }

  /** What is in the editor and not in force, by file. */
  edited() {
    return new Map([...this.texts].filter(([name, text]) => this.files.find((each) => each.name === name)?.text !== text));
  }

  /** Opens a file that the address names, if there is one of that name. */
  turnTo(file) {
    if (file !== this.file && this.texts.has(file)) this.open(file);
  }

  /** Opens a file because somebody wants it, so that the address says so. */
  visit(file, from, to) {
    goTo({ file });
    this.open(file, from, to);
  }

  open(file, from = null, to = from) {
    this.file = file;
    const text = this.texts.get(file) ?? "";
    if (this.text.value !== text) this.text.value = text;
    this.text.setAttribute("aria-label", `Policies in ${file}`);
    this.number();
    this.draw();
    if (from !== null) {
      this.text.focus();
      this.text.setSelectionRange(from, to);
      const line = text.slice(0, from).split("\n").length;
      this.text.scrollTop = Math.max(0, (line - 6) * parseFloat(getComputedStyle(this.text).lineHeight));
    }
  }

  number() {
    const bad = new Set(this.problems.filter((each) => each.file === this.file && each.severity === "error").map((each) => each.line));
    const lines = this.text.value.split("\n").length;
    byId("gutter").replaceChildren(
      ...Array.from({ length: lines }, (_, place) => made("span", { text: String(place + 1), class: bad.has(place + 1) ? "bad" : null })),
    );
    byId("gutter").scrollTop = this.text.scrollTop;
  }

  draw() {
    const edited = this.edited();
    const inForce = new Set(this.page.sandbox?.policies.changed ?? []);
    const focused = byId("files").contains(document.activeElement) ? document.activeElement.dataset.name : null;
    byId("files").replaceChildren(
      ...this.files.map(({ name }) => made("button", {
        type: "button", "data-name": name, "aria-pressed": String(name === this.file), on: { click: () => this.visit(name) },
      }, name, edited.has(name) ? made("span", { class: "dot", title: "edited, not in force", text: " ●" }) : null,
      edited.has(name) ? made("span", { class: "unseen", text: " edited, not in force" }) : null)),
    );
    if (focused) [...byId("files").children].find((each) => each.dataset.name === focused)?.focus();
    byId("in-force").replaceChildren(
      "In force: ",
      inForce.size
        ? made("span", { class: "tag unchecked", text: `your edit of ${[...inForce].join(", ")}` })
        : made("span", { class: "tag good", text: "the original" }),
    );
    byId("restore").disabled = !inForce.size && !edited.size;
  }

  differs(difference) {
    byId("difference-box").hidden = !difference;
    byId("difference").replaceChildren(
      ...difference.split("\n").map((line) => {
        const kind = line.startsWith("+") ? "plus" : line.startsWith("-") ? "minus" : line.startsWith("@") ? "at" : null;
        return kind ? made("span", { class: kind, text: shown(line) }) : `${shown(line)}\n`;
      }),
    );
  }

  /** Does an edit that is worth trying, in the editor only. */
  example({ file, changes }, label) {
    let text = this.texts.get(file) ?? "";
    const pairs = JSON.parse(changes);
    if (pairs.some(([old]) => !text.includes(old))) {
      this.note("unchecked", "The text that this example changes is not there any more. Restore the original first.");
      return;
    }
    for (const [old, put] of pairs) text = text.replaceAll(old, put);
    this.texts.set(file, text);
    this.problems = [];
    byId("checked").replaceChildren();
    const put = pairs.at(-1)[1];
    const at = text.indexOf(put);
    this.visit(file, at, at + put.length);
    say(`Edited, and not in force yet: ${label}`);
  }

  /** Shows where a policy is written. */
  show(name) {
    for (const [file, text] of this.texts) {
      const at = text.indexOf(`@id("${name}")`);
      if (at >= 0) {
        byId("rules").scrollIntoView();
        this.visit(file, at, at + name.length + 6);
        return;
      }
    }
  }

  note(kind, text, ...more) {
    byId("checked").replaceChildren(made("p", { class: `note ${kind}`, text }), ...more.filter(Boolean));
    say(text);
  }

  busy(text) {
    for (const id of ["apply", "check", "restore"]) byId(id).disabled = Boolean(text);
    byId("editing").textContent = text;
    if (!text) this.draw();
  }

  async send(path) {
    if (byId("apply").disabled) return;
    const apply = path.endsWith("apply");
    const edited = this.edited();
    if (!edited.size) edited.set(this.file, this.texts.get(this.file));
    this.busy(apply ? "Checking, and putting it in force…" : "Checking…");
    this.page.calm();
    try {
      const answer = await post(path, { texts: Object.fromEntries(edited) });
      this.adopt(answer);
      this.tell(answer, apply);
      if (!this.page.sandbox) this.page.take((await get("/demo/state.json")).sandbox);
    } catch (error) {
      this.page.complain(error);
    } finally {
      this.busy("");
    }
  }

  tell({ good, problems }, apply) {
    this.problems = problems;
    this.number();
    const list = made("ul", { class: "problems" }, ...problems.map((each) => this.problem(each)));
    const errors = problems.filter((each) => each.severity === "error").length;
    if (!good) {
      this.note("violation", `Not put in force: ${errors === 1 ? "one error" : `${errors} errors`}. What was in force stays in force.`, list);
      const first = problems.find((each) => each.severity === "error");
      if (first && this.texts.has(first.file)) this.at(first);
      return;
    }
    const again = apply && this.page.runs.current && !this.page.runs.current.open && this.page.runs.inputs.has(this.page.runs.current.number);
    this.note("good", apply ? "In force now. The next decision is made by it." : "Nothing is wrong with it. It is not in force yet.",
      again && made("button", { type: "button", text: "Run the same again", on: { click: () => {
        byId("gate").scrollIntoView();
        this.page.inputs.start(this.page.runs.inputs.get(this.page.runs.current.number));
      } } }), problems.length ? list : null);
  }

  problem(each) {
    const edge = each.severity === "error" ? "violation" : "unchecked";
    const place = `${each.file}, line ${each.line}, column ${each.column}`;
    return made("li", { class: `edge-${edge}` },
      made("p", {},
        made("span", { class: `tag ${edge}`, text: each.severity }), " ",
        this.texts.has(each.file)
          ? made("button", { type: "button", class: "link", text: shown(place), on: { click: () => this.at(each) } })
          : made("span", { class: "soft", text: shown(place) })),
      made("p", { text: shown(each.message) }),
      each.fix ? made("p", { class: "soft", text: `Fix: ${shown(each.fix)}` }) : null);
  }

  at({ file, line, column, end_column: end }) {
    const before = (this.texts.get(file) ?? "").split("\n").slice(0, line - 1).join("\n").length + (line > 1 ? 1 : 0);
    this.visit(file, before + column - 1, before + end - 1);
  }

  async restore() {
    this.busy("Restoring the original…");
    this.page.calm();
    try {
      if (this.page.sandbox?.policies.changed.length) this.adopt(await post("/demo/restore", {}), true);
      else await this.load(true);
      this.note("good", "The original policies are in force.");
    } catch (error) {
      this.page.complain(error);
    } finally {
      this.busy("");
    }
  }

  take(sandbox) {
    const changed = JSON.stringify(sandbox?.policies ?? null);
    if (changed !== this.changed && !byId("apply").disabled) this.draw();
    this.changed = changed;
  }
}
