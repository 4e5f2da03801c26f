// The demo page: what its parts share. Everything from the server is put in place as text, never as HTML.
import { Inputs } from "/static/demo/inputs.js";
import { Policies } from "/static/demo/policies.js";
import { Runs } from "/static/demo/runs.js";
import { Tampering } from "/static/demo/tampering.js";
import { Refused, get, post } from "/static/demo/server.js";
import { byId, say } from "/static/demo/elements.js";

const trouble = byId("trouble");

/** Shows what could not be done. */
function complain(error) {
  trouble.textContent = error instanceof Refused ? error.message : "Something went wrong on this page. Load it again.";
  trouble.hidden = false;
  if (!(error instanceof Refused)) console.error(error);
}

const page = {
  sandbox: null,
  stream: null,
  complain,
  calm() {
    trouble.hidden = true;
  },
  /** Takes a new state of the sandbox. */
  take(sandbox) {
    const before = page.sandbox;
    if (before && sandbox && !before.ended && sandbox.version < before.version && before.name === sandbox.name) return;
    page.sandbox = sandbox;
    const alive = Boolean(sandbox) && !sandbox.ended;
    byId("reset").disabled = !alive;
    byId("left").textContent = alive
      ? `${sandbox.left.runs} runs left, ends in ${Math.ceil(sandbox.left.seconds / 60)} min`
      : "";
    if (sandbox?.ended) {
      complain(new Refused("This sandbox has ended. The next run begins in a new one.", "gone"));
      page.leave();
    }
    inputs.take(sandbox);
    runs.take(sandbox, before);
    policies.take(sandbox);
    tampering.take();
    if (alive) page.follow();
  },
  /** Follows what happens, from now on. */
  follow() {
    if (page.stream) return;
    page.stream = new EventSource("/demo/follow");
    page.stream.onmessage = (event) => {
      page.lost = 0;
      page.take(JSON.parse(event.data));
    };
    page.stream.onerror = async () => {
      page.leave();
      page.lost = (page.lost ?? 0) + 1;
      if (page.lost > 1) complain(new Refused("The console does not answer. This page goes on when it does.", "away"));
      setTimeout(async () => {
        try {
          const found = await get("/demo/state.json");
          page.calm();
          page.take(found.sandbox);
        } catch {
          page.follow();
        }
      }, Math.min(1000 * page.lost, 10000));
    };
  },
  leave() {
    page.stream?.close();
    page.stream = null;
  },
};

const inputs = new Inputs(page);
const tampering = new Tampering(page);
const runs = new Runs(page);
const policies = new Policies(page);
Object.assign(page, { inputs, runs, policies, tampering });

byId("reset").addEventListener("click", async (event) => {
  event.target.disabled = true;
  page.leave();
  try {
    await post("/demo/reset", {});
    page.calm();
    page.take(null);
    await policies.load(true);
    say("The sandbox was reset. The next run begins in a new one.");
  } catch (error) {
    complain(error);
    event.target.disabled = false;
    if (page.sandbox) page.follow();
  }
});

window.addEventListener("pagehide", () => page.leave());

try {
  const [found] = await Promise.all([get("/demo/state.json"), policies.load()]);
  if (found.sandbox) page.take(found.sandbox);
} catch (error) {
  complain(error);
}
document.documentElement.dataset.ready = "true";
