"""The fleet: what the gate does where every part is a process of its own. ``make demo-fleet``.

Exit code 0 if every step went as it should, 1 if one did not, 2 if it could not run, 130 if it was interrupted.
"""

import argparse
import asyncio
import logging
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from temporalio.client import Client

from exequatur import ExequaturError
from workflows.fleet.parts import WORKERS, Fleet, until
from workflows.fleet.stage import AUTHORITY_READY, Stage
from workflows.fleet.story import SCENES
from workflows.processes import Processes
from workflows.scene import Scene, play
from workflows.terminal import Terminal

POLICIES = Path(__file__).resolve().parent.parent.parent / "policies"


async def tell(fleet: Fleet, terminal: Terminal, scenes: Sequence[tuple[int, Scene[Stage]]]) -> int:
    """Tell the story and return the exit code."""
    if task := asyncio.current_task():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    begun = time.monotonic()
    terminal.plain("Exequatur: a fleet. The authority is a service, and workers hold no key but their own.")
    terminal.plain(f"folder     {fleet.folder}")
    terminal.plain("prepared   policies signed, the installation measured and signed for each worker ...")
    fleet.start_temporal()
    await asyncio.to_thread(fleet.configure)
    authority = fleet.start_authority()
    await until("the authority serves", lambda: authority.has_logged(AUTHORITY_READY))
    for name in WORKERS:
        fleet.start_worker(name)
    stage = Stage(fleet, terminal, await _connected(fleet))
    await stage.ready(*WORKERS)
    terminal.plain(f"server     {fleet.target}, process {fleet.children['temporal'].pid}")
    terminal.plain(f"authority  {fleet.authority}, process {authority.pid}")
    terminal.plain(f"workers    processes {', '.join(str(fleet.children[name].pid) for name in WORKERS)}")
    terminal.plain(
        f"ready after {time.monotonic() - begun:.0f} s; what the processes print is in {fleet.folder / 'logs'}"
    )
    outcomes = await play(stage, scenes)
    terminal.heading(f"What happened, in {time.monotonic() - begun:.0f} seconds")
    rows = [(scene, outcome) for (_, scene), outcome in zip(scenes, outcomes, strict=True)]
    terminal.table(
        ("step", "expected", "what happened"),
        [((scene.title, scene.expected, outcome.happened), outcome.ok) for scene, outcome in rows],
    )
    terminal.plain(f"histories  {fleet.folder / 'histories'}")
    terminal.plain(f"logs       {fleet.folder / 'logs'}")
    failed = [f"{scene.title}: {outcome.happened}" for scene, outcome in rows if not outcome.ok]
    for line in failed:
        terminal.say(line)
    terminal.plain(
        f"{len(failed)} of {len(rows)} steps failed." if failed else f"All {len(rows)} steps went as they should."
    )
    return 1 if failed else 0


async def _connected(fleet: Fleet) -> Client:
    """A plain client, as soon as the server answers."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return await Client.connect(fleet.target)
        except RuntimeError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo-fleet ARGS=...", description="Show what the gate does in a fleet.")
    parser.add_argument("--folder", type=Path, help="new folder for all that is written; a temporary one by default")
    parser.add_argument("--policies", type=Path, default=POLICIES, help="policies to copy and use")
    parser.add_argument("--only", type=int, nargs="+", help="numbers of the steps to play; all by default")
    options = parser.parse_args()
    scenes = [each for each in enumerate(SCENES, 1) if options.only is None or each[0] in options.only]
    try:
        folder = options.folder or Path(tempfile.mkdtemp(prefix="exequatur-fleet-"))
        folder = folder.resolve()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise FileExistsError(f"{folder} is not empty; name a new folder")
        (folder / "logs").mkdir()
        logging.basicConfig(
            filename=folder / "logs" / "demo.log",
            level=logging.INFO,
            format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
        )
        # The tests know how to run a PostgreSQL that was not installed; their code is not type-checked.
        postgresql = import_module("tests.lineage.postgres").Postgres
        with (
            postgresql() as postgres,
            postgres.database() as evidence,
            postgres.database() as shared,
            Processes(folder / "logs") as processes,
        ):
            fleet = Fleet(folder, options.policies, (evidence, shared), processes)
            return asyncio.run(tell(fleet, Terminal(), scenes))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("\nInterrupted; every process has been ended.", file=sys.stderr)
        return 130
    except (ExequaturError, OSError, RuntimeError, TimeoutError) as err:
        print(f"The demo cannot run: {err}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
