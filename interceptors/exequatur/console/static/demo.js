// The demo page: what its parts share. Everything from the server is put in place as text, never as HTML.
import { Inputs } from "/static/demo/inputs.js";
import { Policies } from "/static/demo/policies.js";
import { Runs } from "/static/demo/runs.js";
import { Tampering } from "/static/demo/tampering.js";
import { asked, forget } from "/static/demo/address.js";
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
    byId("reset").hidden = !alive;
    byId("reset").disabled = !alive;
    byId("left").textContent = alive
      ? `${sandbox.left.runs} runs left; this sandbox ends in ${Math.ceil(sandbox.left.seconds / 60)} min`
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
      setTimeout(async () => {
        try {
          const found = await get("/demo/state.json");
          if (page.away) page.calm();
          page.away = false;
          page.take(found.sandbox);
        } catch (error) {
          page.away = error.why === "away";
          if (page.away) page.follow();
          complain(page.away ? new Refused("The console does not answer. This page goes on when it does.", "away") : error);
        }
      }, Math.min(1000 * page.lost, 10000));
    };
  },
  /** Shows what the address asks for, or says why that cannot be shown. */
  arrive() {
    const wanted = asked();
    const own = !wanted.sandbox || wanted.sandbox === page.sandbox?.tag;
    const there = !wanted.run || page.sandbox?.runs.some((each) => String(each.number) === wanted.run);
    if (!own) {
      complain(new Refused(
        `This link leads to ${wanted.run ? `run ${wanted.run} of ` : ""}a sandbox that has ended, or to somebody else's. `
        + "Only the visitor who made a sandbox sees it, in the same browser, until it ends. Start the agent to get one of your own.", "gone"));
    } else if (!there) {
      complain(new Refused(`There is no run ${wanted.run} in your sandbox. Choose one of yours, or start the agent.`, "gone"));
    } else page.calm();
    runs.choose(own && there && wanted.run ? Number(wanted.run) : null);
    if (wanted.file) policies.turnTo(wanted.file);
    runs.take(page.sandbox, page.sandbox);
    tampering.take();
    tampering.turnTo(wanted);
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
    forget();
    page.take(null);
    await policies.load(true);
    say("The sandbox was reset. The next run begins in a new one.");
  } catch (error) {
    complain(error);
    event.target.disabled = false;
    if (page.sandbox) page.follow();
  }
});

window.addEventListener("popstate", () => page.arrive());
window.addEventListener("pagehide", () => page.leave());

try {
  const [found] = await Promise.all([get("/demo/state.json"), policies.load()]);
  if (found.sandbox) page.take(found.sandbox);
  page.arrive();
} catch (error) {
  complain(error);
}
document.documentElement.dataset.ready = "true";
