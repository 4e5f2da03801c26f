// The runs: the one that is looked at with its steps, and the list of all.
import { addressOf, goTo } from "/static/demo/address.js";
import { byId, made, say, shown } from "/static/demo/elements.js";
import { post } from "/static/demo/server.js";
import { localize } from "/static/times.js";

const STEP = {
  planned: ["", "Not yet", "", "later"],
  skipped: ["", "Not reached", "", "later"],
  asked: ["", "Asking the gate", "turning", ""],
  running: ["", "Allowed, running", "turning", "good"],
  done: ["✓", "Allowed", "good", "good"],
  denied: ["✕", "Denied", "violation", "violation"],
  rejected: ["✕", "Refused", "violation", "violation"],
  revoked: ["✕", "Revoked", "violation", "violation"],
  waiting: ["?", "Waits for people", "unchecked", "unchecked"],
  failed: ["!", "Failed", "unchecked", "unchecked"],
};
const RUN = {
  starting: ["Starting", "notice"],
  running: ["Running", "notice"],
  waiting: ["Waits for people", "unchecked"],
  completed: ["Completed", "good"],
  stopped: ["Stopped", "violation"],
  refused: ["Not started", "violation"],
};
const DECISION = { allow: "allowed", deny: "denied", none: "refused before the policies were asked" };

const time = (at) => made("time", { datetime: new Date(at * 1000).toISOString(), "data-local": true });

export class Runs {
  constructor(page) {
    this.page = page;
    this.chosen = null;
    this.inputs = new Map();
    this.drawn = "";
    this.listed = "";
  }

  choose(number, inputs) {
    this.chosen = number;
    if (inputs) this.inputs.set(number, inputs);
  }

  /** What the address says of a run. */
  named(number) {
    return { sandbox: this.page.sandbox.tag, run: number, event: null, change: null };
  }

  get current() {
    const runs = this.page.sandbox?.runs ?? [];
    return runs.find((each) => each.number === this.chosen) ?? runs[0] ?? null;
  }

  take(sandbox, before) {
    if (!sandbox) {
      this.inputs.clear();
      this.chosen = null;
    }
    this.announce(sandbox, before);
    this.draw();
    this.list(sandbox);
  }

  /** Says what has changed in the run that is looked at. */
  announce(sandbox, before) {
    const run = this.current;
    const old = before?.runs.find((each) => each.number === run?.number);
    if (!run || !sandbox) return;
    const told = [];
    run.steps.forEach((step, place) => {
      const was = old?.steps[place];
      if (was?.state !== step.state && !["planned", "skipped", "asked"].includes(step.state)) {
        const why = ["denied", "rejected", "revoked", "failed", "waiting"].includes(step.state) ? ` ${step.sentence}` : "";
        told.push(`Step ${step.number}, ${step.title}: ${STEP[step.state][1]}.${why}`);
      }
    });
    if (old?.state !== run.state && !run.open) told.push(`${RUN[run.state][0]}. ${run.sentence}`);
    if (told.length) say(shown(told.join(" ")));
  }

  draw() {
    const run = this.current;
    const json = JSON.stringify(run);
    if (json === this.drawn) return;
    this.drawn = json;
    const place = byId("run");
    if (!run) {
      this.empty ??= place.firstElementChild;
      place.replaceChildren(this.empty);
      return;
    }
    this.empty ??= place.firstElementChild;
    const opened = new Set([...place.querySelectorAll("details[open]")].map((each) => each.dataset.key));
    const focused = place.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    place.replaceChildren(this.head(run), this.steps(run));
    for (const each of place.querySelectorAll("details")) each.open = opened.has(each.dataset.key);
    if (focused) [...place.querySelectorAll("[data-key]")].find((each) => each.dataset.key === focused)?.focus();
    localize(place);
  }

  head(run) {
    const [word, kind] = RUN[run.state];
    const box = made("div", { class: "run-head" },
      made("div", {},
        made("h3", { text: shown(run.title), class: "hostile" }),
        made("p", { class: "small soft" }, "On behalf of ", made("span", { class: "hostile", text: shown(run.principal) }), ", started ", time(run.started)),
      ),
      made("div", { class: "row" },
        made("span", { class: `tag ${kind}`, text: word }),
        run.open && made("button", {
          type: "button", class: "danger", "data-key": "revoke", text: run.revoked ? "Revoked" : "Revoke now", disabled: run.revoked,
          on: { click: (event) => this.send(event.target, "/demo/revoke", { run: run.number }) },
        }),
        !run.open && this.inputs.has(run.number) && made("button", {
          type: "button", class: "plain", "data-key": "again", text: "Run the same again",
          on: { click: () => this.page.inputs.start(this.inputs.get(run.number)) },
        }),
        !run.open && run.events > 0 && made("a", { class: "button plain", href: "#history", text: "Tamper with it" }),
        this.elsewhere(run),
      ),
    );
    const told = run.problem ?? (run.state === "refused" ? null
      : run.revoked && run.state === "waiting" ? "It was revoked: whoever agrees now, its next request is refused." : run.sentence);
    if (told) box.append(made("p", { text: shown(told), class: run.problem ? "note unchecked" : "soft" }));
    return box;
  }

  /** The run in the Temporal UI, where the console knows one. */
  elsewhere(run) {
    const { ui, namespace } = byId("demo").dataset;
    if (!ui || !run.run_id) return null;
    const path = ["namespaces", namespace, "workflows", run.workflow_id, run.run_id, "history"].map(encodeURIComponent);
    return made("a", { class: "small", href: `${ui.replace(/\/+$/, "")}/${path.join("/")}`, rel: "noreferrer", text: "In the Temporal UI" });
  }

  steps(run) {
    return made("ol", { class: "steps", "aria-label": "Steps" }, this.start(run), ...run.steps.map((step) => this.step(run, step)));
  }

  /** Whether it may start at all, which the authority is asked first. */
  start(run) {
    const asked = run.start;
    const refused = run.state === "refused";
    const allowed = asked?.decision === "allow";
    const sort = refused ? "violation" : allowed ? "good" : "";
    return made("li", { class: "step" },
      made("span", { class: `mark ${sort || "blank turning"}`, "aria-hidden": "true", text: refused ? "✕" : allowed ? "✓" : "" }),
      made("div", {},
        made("div", { class: "title" },
          made("strong", { text: "May it start?" }),
          made("span", { class: `tag ${sort || "notice"}`, text: refused ? "Denied" : allowed ? "Grant issued" : "Asking" })),
        refused && made("p", { class: "why edge-violation", text: shown(run.sentence) }),
        this.by(asked?.policies ?? []),
        asked && this.details(run, "start", [["Asked", time(asked.at)], ["Policies in force", this.digest(asked.bundle)]]),
      ));
  }

  step(run, step) {
    const [sign, word, mark, sort] = STEP[step.state];
    const waiting = step.state === "waiting" && run.open;
    const last = step.decisions.at(-1);
    const said = !["planned", "skipped", "asked", "running", "done", "waiting"].includes(step.state);
    const rows = [
      ["Activity", made("code", { text: shown(step.activity) })],
      ["Arguments", step.arguments && made("code", { text: shown(step.arguments) })],
      ["Digest of the arguments", last?.arguments && this.digest(last.arguments)],
      ...step.decisions.map((each, number) => [
        step.decisions.length > 1 ? `Decision ${number + 1}` : "Decision",
        made("span", {}, DECISION[each.decision] ?? shown(each.decision), " at ", time(each.at),
          each.policies.length ? ` by ${shown(each.policies.join(", "))}` : "",
          each.approvers.length ? `, agreed by ${shown(each.approvers.join(", "))}` : ""),
      ]),
      ["Policies in force", last?.bundle && this.digest(last.bundle)],
      ["Result", step.result && made("code", { text: shown(step.result) })],
      ...step.receipts.map((each) => [
        "Signed receipt",
        made("span", {}, `says ${shown(each.outcome)}, asked again ${each.rechecks} times, signed by `,
          made("span", { class: "hostile", text: shown(each.worker) }), each.log && `, journal ${shown(each.log)}`),
      ]),
    ];
    return made("li", { class: `step ${sort}-step ${sort === "later" ? "later" : ""}` },
      made("span", { class: `mark ${mark || "blank"}`, "aria-hidden": "true", text: sign || String(step.number) }),
      made("div", {},
        made("div", { class: "title" },
          made("strong", { class: "hostile", text: shown(step.title) }),
          made("span", { class: `tag ${sort === "later" || !sort ? "notice" : sort}`, text: word })),
        said && made("p", { class: `why edge-${sort}`, text: shown(step.sentence) }),
        waiting && this.ask(run, last),
        // What was allowed and ended all the same was not ended by the policies that had allowed it.
        this.by(last?.policies ?? [], said && last?.decision === "allow" ? "Before that, it was allowed by" : "By"),
        last?.approvers.length > 0 && made("p", { class: "small soft hostile", text: `Agreed by ${shown(last.approvers.join(", "))}` }),
        step.decisions.length > 0 && this.details(run, `step-${step.number}`, rows),
      ));
  }

  ask(run, last) {
    const who = byId("demo").dataset.approver;
    const send = (agree) => (event) => this.send(event.target, "/demo/answer", { run: run.number, agree });
    return made("div", { class: "ask" },
      made("p", { text: shown(last?.reason ?? "People have to agree.") }),
      run.answered
        ? made("p", { text: run.answered === "agreed" ? "They have agreed; the run asks again." : "They have refused." })
        : made("div", { class: "row" },
          made("button", { type: "button", "data-key": "agree", text: `Agree as ${who}`, on: { click: send(true) } }),
          made("button", { type: "button", class: "plain", "data-key": "reject", text: "Refuse", on: { click: send(false) } })),
    );
  }

  by(policies, how = "By") {
    if (!policies.length) return null;
    const list = made("p", { class: "small soft" }, policies.length > 1 ? `${how} the policies ` : `${how} the policy `);
    policies.forEach((name, number) => {
      if (number) list.append(", ");
      list.append(made("button", { type: "button", class: "link", text: shown(name), title: "Show it in the editor", on: { click: () => this.page.policies.show(name) } }));
    });
    return list;
  }

  details(run, key, rows) {
    const facts = made("dl", { class: "facts" });
    for (const [name, value] of rows) if (value) facts.append(made("dt", { text: name }), made("dd", { class: "hostile" }, value));
    return made("details", { "data-key": `${run.number}-${key}` }, made("summary", { text: "Evidence" }), facts);
  }

  digest(text) {
    return text ? made("span", { class: "digest", text: shown(text) }) : null;
  }

  list(sandbox) {
    const runs = sandbox?.runs ?? [];
    byId("runs-box").hidden = runs.length < 2;
    const current = this.current?.number;
    const json = JSON.stringify([current, runs.map((each) => [each.number, each.title, each.state])]);
    if (json === this.listed) return;
    this.listed = json;
    const focused = byId("runs").contains(document.activeElement) ? document.activeElement.dataset.number : null;
    byId("runs").replaceChildren(...runs.map((run) => made("li", {},
      made("a", {
        href: addressOf(this.named(run.number)), "data-number": run.number, "aria-current": run.number === current ? "true" : null,
        on: { click: (event) => {
          if (event.ctrlKey || event.metaKey || event.shiftKey) return;
          event.preventDefault();
          this.choose(run.number);
          goTo(this.named(run.number));
          this.take(this.page.sandbox, this.page.sandbox);
          this.page.tampering.take();
        } },
      },
      made("span", { class: "hostile", text: `${run.number}. ${shown(run.title)}` }),
      made("span", { class: `tag ${RUN[run.state][1]}`, text: RUN[run.state][0] })))));
    if (focused) byId("runs").querySelector(`[data-number="${CSS.escape(focused)}"]`)?.focus();
  }

  async send(button, path, body) {
    button.disabled = true;
    this.page.calm();
    try {
      const answer = await post(path, body);
      this.page.take(answer.sandbox);
    } catch (error) {
      this.page.complain(error);
      button.disabled = false;
    }
  }
}
