// Tampers with a copy of a history, and shows what the audit says of it beside the original.
import { asked, goTo } from "/static/demo/address.js";
import { byId, made, say, shown } from "/static/demo/elements.js";
import { get, post } from "/static/demo/server.js";

const EDGE = { verified: "good", violated: "violation", unchecked: "unchecked", unreadable: "violation" };
const WORTH = ["arguments", "receipt", "principal", "swap", "result", "forget", "request", "grant", "cut"];
const QUICK = {
  arguments: "Change the arguments",
  receipt: "Take the receipt out",
  principal: "Say that somebody else asked for it",
  swap: "Swap two results",
  result: "Claim another result",
  forget: "Forget a step",
  request: "Take the signed request out",
  grant: "Take the grant out",
  cut: "Cut the end off",
};

export class Tampering {
  constructor(page) {
    this.page = page;
    this.loaded = null;
    this.history = null;
    byId("tamper-event").addEventListener("change", () => {
      this.event();
      this.tell();
    });
    byId("tamper-change").addEventListener("change", () => {
      this.change();
      this.tell();
    });
    byId("tamper-go").addEventListener("click", () => this.own());
  }

  async take() {
    const run = this.page.runs.current;
    const ready = run && !run.open && run.events > 0;
    byId("tamper-none").hidden = Boolean(ready);
    byId("tamper-form").hidden = !ready;
    byId("tamper-none").textContent = run?.open
      ? "This run is still open. Its history can be tampered with when it has ended."
      : run && !run.events ? "This run was never started, so it has no history. Choose another one." : "Start a run. When it has ended, its history is here.";
    // A run that has just ended may get a last event yet.
    const key = ready ? `${run.workflow_id} ${run.events}` : null;
    if (key === this.loaded) return;
    this.loaded = key;
    byId("verdict").replaceChildren();
    if (!key) return;
    byId("tamper-run").textContent = shown(`${run.number}. ${run.title}`);
    try {
      const history = await get(`/demo/history.json?run=${run.number}`);
      if (this.loaded === key) this.fill(history);
    } catch (error) {
      this.loaded = null;
      this.page.complain(error);
    }
  }

  fill(history) {
    this.history = history;
    byId("tamper-quick").replaceChildren(
      ...WORTH.flatMap((kind) => {
        const can = history.events.filter((each) => each.changes.some((change) => change.kind === kind));
        // The arguments of a step say more than those of the start.
        const event = kind === "arguments" ? this.amount(can) : kind === "cut" ? can.at(-1) : kind === "receipt" ? can.at(-1) : can[0];
        const money = kind === "arguments" && event?.readable.includes('"amount"');
        return event ? [made("button", { type: "button", class: "chip", text: money ? "A hundred times the amount" : QUICK[kind], on: { click: () => this.pick(event.id, kind) } })] : [];
      }),
    );
    byId("tamper-event").replaceChildren(...history.events.map((each) => made("option", { value: each.id, text: shown(`${each.id}  ${each.name}`) })));
    this.event();
    this.turnTo(asked());
  }

  /** Puts in the address what is chosen. */
  tell() {
    goTo({ ...this.page.runs.named(this.history.run), event: byId("tamper-event").value, change: byId("tamper-change").value });
  }

  /** Chooses the event and the change that the address names, if there are such. */
  turnTo({ sandbox, run, event, change }) {
    const mine = this.history && sandbox === this.page.sandbox?.tag && run === String(this.history.run);
    if (!mine || !this.history.events.some((each) => String(each.id) === event)) return;
    this.choose(event, change);
    byId("tamper-own").open = true;
  }

  /** The event whose arguments have an amount, or the first step's. */
  amount(events) {
    const steps = events.filter((each) => each.id > 1);
    return steps.find((each) => each.readable.includes('"amount"')) ?? steps[0] ?? events[0];
  }

  get chosen() {
    return this.history.events.find((each) => String(each.id) === byId("tamper-event").value);
  }

  event() {
    byId("tamper-change").replaceChildren(...this.chosen.changes.map((each) => made("option", { value: each.kind, text: each.label })));
    byId("tamper-readable").textContent = shown(this.chosen.readable);
    byId("tamper-text").value = this.chosen.json;
    this.change();
  }

  change() {
    const free = byId("tamper-change").value === "edit";
    byId("tamper-free").hidden = !free;
    byId("tamper-readable").hidden = free;
  }

  /** Does what was picked, and chooses it as well, so that the address and the form say what was done. */
  pick(event, kind) {
    this.choose(String(event), kind);
    this.tell();
    return this.audit(event, kind);
  }

  choose(event, kind) {
    byId("tamper-event").value = event;
    this.event();
    const change = byId("tamper-change");
    if ([...change.options].some((each) => each.value === kind)) change.value = kind;
    this.change();
  }

  own() {
    this.tell();
    const kind = byId("tamper-change").value;
    return this.audit(this.chosen.id, kind, kind === "edit" ? byId("tamper-text").value : null);
  }

  async audit(event, change, text = null) {
    const place = byId("verdict");
    place.replaceChildren(made("p", { class: "soft", text: "Auditing the original and your copy…" }));
    this.page.calm();
    try {
      const answer = await post("/demo/audit", { run: this.history.run, event, change, text });
      this.show(answer);
    } catch (error) {
      place.replaceChildren(made("p", { class: "note violation", role: "alert", text: shown(error.message) }));
    }
  }

  show(answer) {
    const was = made("div", { class: "was" });
    for (const [word, kind, text] of [["Before", "minus", answer.before], ["After", "plus", answer.after]]) {
      if (answer.same || !text) continue;
      was.append(made("div", {},
        made("p", { class: "small soft", text: word }),
        made("pre", { class: `${kind} hostile`, tabindex: "0", "aria-label": word, text: shown(text) })));
    }
    byId("verdict").replaceChildren(
      made("h3", { text: "What was done" }),
      made("p", { text: shown(answer.done) }), was,
      made("div", { class: "verdicts" }, this.verdict("The original", answer.original), this.verdict("Your copy", answer.copy)),
    );
    byId("verdict").scrollIntoView({ block: "nearest" });
    say(shown(`${answer.done} The original: ${answer.original.title}. Your copy: ${answer.copy.title}. ${answer.copy.findings[0]?.sentences[0] ?? ""}`));
  }

  verdict(whose, { verdict, title, sentence, events, findings }) {
    const unproven = findings.filter((each) => each.severity === "unproven");
    const grave = findings.filter((each) => each.severity !== "unproven");
    return made("div", { class: `panel edge-${EDGE[verdict]}` },
      made("p", { class: "eyebrow", text: `${whose}, ${events} events` }),
      made("h3", { text: shown(title) }),
      made("p", { class: "small", text: shown(sentence) }),
      grave.length ? made("ul", { class: "found" }, ...grave.map((each) => this.found(each))) : null,
      unproven.length ? made("details", {}, made("summary", { class: "small soft", text: `${unproven.length} points that nobody independent vouches for` }),
        made("ul", { class: "found" }, ...unproven.map((each) => this.found(each)))) : null,
    );
  }

  found({ severity, code, meaning, sentences, more }) {
    const kind = severity === "violation" ? "violation" : severity === "unchecked" ? "unchecked" : "unproven";
    return made("li", {},
      made("p", {}, made("span", { class: `tag ${kind}`, text: shown(code) }), " ", made("span", { class: "small soft", text: shown(meaning) })),
      made("ul", {}, ...sentences.map((each) => made("li", { class: "hostile", text: shown(each) })), more ? made("li", { class: "soft", text: `and ${more} more` }) : null));
  }
}
