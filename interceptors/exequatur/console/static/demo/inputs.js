// The form that starts a run, and what has come of the runs.
import { goTo } from "/static/demo/address.js";
import { byId, made, say, shown } from "/static/demo/elements.js";
import { Refused, post } from "/static/demo/server.js";

export class Inputs {
  constructor(page) {
    this.page = page;
    this.form = byId("inputs");
    this.facts = "";
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.start();
    });
    this.form.addEventListener("input", () => this.arrange());
    for (const chip of this.form.querySelectorAll("[data-values]")) {
      chip.addEventListener("click", () => this.fill(JSON.parse(chip.dataset.values), chip.textContent));
    }
    this.defaults = this.values();
    this.arrange();
  }

  values() {
    return Object.fromEntries(new FormData(this.form));
  }

  /** Fills in values; what they do not name has its default. */
  fill(values, label) {
    for (const [name, value] of Object.entries({ ...this.defaults, ...values })) {
      this.form.elements[name].value = value;
    }
    this.arrange();
    if (label) say(`Filled in: ${label}`);
  }

  /** Shows what is asked for with the choices that were made. */
  arrange() {
    for (const field of this.form.querySelectorAll("[data-only]")) {
      const chosen = this.form.elements[field.dataset.only].value;
      field.hidden = !field.dataset.with.split(" ").includes(chosen);
    }
  }

  complain(error) {
    const wrong = byId("wrong");
    wrong.textContent = error ? shown(error.message) : "";
    wrong.hidden = !error;
    for (const each of this.form.elements) each.removeAttribute("aria-invalid");
    const field = error?.field && this.form.elements[error.field];
    if (field) {
      field.setAttribute("aria-invalid", "true");
      field.focus();
    }
  }

  async start(values = this.values()) {
    const button = byId("start");
    if (button.disabled) return;
    button.disabled = true;
    button.textContent = this.page.sandbox ? "Starting…" : "Making your sandbox…";
    this.complain(null);
    this.page.calm();
    try {
      const answer = await post("/demo/start", { inputs: values });
      this.page.runs.choose(answer.run, values);
      this.page.take(answer.sandbox);
      goTo(this.page.runs.named(answer.run));
      byId("gate").scrollIntoView({ block: "nearest" });
    } catch (error) {
      if (error instanceof Refused && error.why === "input") this.complain(error);
      else this.page.complain(error);
    } finally {
      button.disabled = false;
      button.textContent = "Start the agent";
    }
  }

  take(sandbox) {
    const facts = sandbox?.facts ?? [];
    byId("facts-panel").hidden = facts.length === 0;
    const json = JSON.stringify(facts);
    if (json === this.facts) return;
    const before = this.facts ? Object.fromEntries(JSON.parse(this.facts).map((each) => [each.label, each.value])) : {};
    this.facts = json;
    byId("facts").replaceChildren(
      ...facts.flatMap(({ label, value }) => [
        made("dt", { text: shown(label) }),
        made("dd", { text: shown(value), class: label in before && before[label] !== value ? "changed" : null }),
      ]),
    );
  }
}
