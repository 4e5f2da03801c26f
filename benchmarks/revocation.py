"""``make bench-revocation``: how long it takes from the command to the stop of a running activity.

A worker process runs activities that never end: one kind heartbeats, the other does not and is ended by the watchdog.
They are revoked again and again by `exequatur revoke`, as a person would. The time runs from the moment at which the
entry is on disk (its ``at``, set right before) to the moment at which the body is told, by the clock of this machine.

The worker follows the feed in its own state folder, at an authority service by long polls, or at the control workflow
of its namespace. In the last two it has a state folder of its own, and the feed comes to it signed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import shutil
import signal
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

from exequatur import AuthorizationPlugin, Principal, Settings

with workflow.unsafe.imports_passed_through():
    from exequatur.authority.feed import own_revocations
    from exequatur.authority.state import open_state
    from exequatur.revocation.entry import revocation

FEEDS = ("folder", "authority", "temporal")
KINDS = ("heartbeat", "watchdog")
BOUNDS = {"folder": 1.0, "authority": 2.0, "temporal": 2.0}
"""Seconds that it may take at most."""
QUEUE = "bench-revocation"
IDENTITY = '[[verifier]]\nname = "dev"\nkind = "local"\n[[workload]]\nprincipal = \'Service::"*"\'\npath = "bench"\n'
POLICIES = '@id("all") permit(principal, action, resource);\n'


@activity.defn
async def beats() -> None:
    await _told(heartbeat=True)


@activity.defn
async def sleeps() -> None:
    await _told(heartbeat=False)


async def _told(*, heartbeat: bool) -> None:
    """Go on until told to stop, and say when that was."""
    name = activity.info().workflow_id
    print(json.dumps({"began": name}), flush=True)
    try:
        while True:
            if heartbeat:
                activity.heartbeat()
            await asyncio.sleep(0.02 if heartbeat else 60)
    finally:
        print(json.dumps({"ended": name, "at": time.time()}), flush=True)


@workflow.defn
class Endless:
    """Runs one activity for as long as it may."""

    @workflow.run
    async def run(self, name: str) -> None:
        timeout = timedelta(seconds=20) if name == "beats" else None
        await workflow.execute_activity(name, start_to_close_timeout=timedelta(minutes=5), heartbeat_timeout=timeout)


def runner() -> SandboxedWorkflowRunner:
    return SandboxedWorkflowRunner(restrictions=SandboxRestrictions.default.with_passthrough_modules("benchmarks"))


# The worker, in a process of its own.


async def serve(feed: str, target: str, folder: str, url: str) -> None:
    """Run a worker until standard input ends."""
    logging.disable(logging.WARNING)  # that activities fail is what is measured
    principal = Principal("Service", "bench")
    place = Path(folder)
    if feed == "authority":
        settings = Settings(policy_poll_interval="250ms")
        plugin = AuthorizationPlugin(
            url, principal=principal, policies=place / "policies", state_dir=place / "worker", settings=settings
        )
    else:
        settings = Settings(revocation_feed="temporal") if feed == "temporal" else Settings()
        plugin = AuthorizationPlugin.embedded(
            place / "policies", state_dir=place / "state", principal=principal, settings=settings
        )
    client = await Client.connect(target, plugins=[plugin])
    async with Worker(
        client, task_queue=QUEUE, workflows=[Endless], activities=[beats, sleeps], workflow_runner=runner()
    ):
        while plugin.gate.unavailable() is not None:  # noqa: ASYNC110 (the gate has many reasons and no single event)
            await asyncio.sleep(0.05)
        print(json.dumps({"ready": True}), flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            await client.start_workflow(
                Endless.run, line.split()[1], id=line.split()[0], task_queue=QUEUE, task_timeout=timedelta(seconds=10)
            )


class Process:
    """A process whose standard output is lines of JSON."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def say(self, line: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(f"{line}\n".encode())
        await self._process.stdin.drain()

    async def hear(self, name: str) -> dict[str, Any]:
        """The next line that has this member."""
        assert self._process.stdout
        while line := await asyncio.wait_for(self._process.stdout.readline(), 60):
            with contextlib.suppress(ValueError):
                told = json.loads(line)
                if name in told:
                    return dict(told)
        raise RuntimeError("the process ended; see what it wrote above")


@asynccontextmanager
async def process(*arguments: str) -> AsyncIterator[Process]:
    started = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield Process(started)
    finally:
        with contextlib.suppress(ProcessLookupError):
            started.send_signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(started.communicate(), 15)
        with contextlib.suppress(ProcessLookupError):
            started.kill()


# What is measured.


@asynccontextmanager
async def keeper(feed: str, target: str, folder: Path) -> AsyncIterator[str]:
    """Whoever publishes the feed; gives the authority's URL where there is one."""
    main = ("-c", "from exequatur.cli.main import main; main()")
    if feed == "authority":
        (folder / "identity.toml").write_text(IDENTITY)
        (folder / "authority.toml").write_text(
            'state = "state"\npolicies = "policies"\nidentity = "identity.toml"\nlisten = "127.0.0.1:18743"\n'
            f'access_log = "{folder / "access.log"}"\n'
        )
        async with process(*main, "authority", "serve", "--config", str(folder / "authority.toml")):
            await _listening("127.0.0.1", 18743)
            yield "http://127.0.0.1:18743"
    elif feed == "temporal":
        async with process(*main, "control", "--state", str(folder / "state"), "--address", target):
            yield ""
    else:
        yield ""


async def _listening(host: str, port: int) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
            return
        await asyncio.sleep(0.1)
    raise RuntimeError("the authority does not listen")


async def measure(feed: str, target: str, rounds: int) -> dict[str, list[float]]:
    """Seconds from the revocation to the stop, by kind of activity."""
    with tempfile.TemporaryDirectory(prefix="exequatur-bench-") as name:
        folder = Path(name)
        (folder / "policies").mkdir()
        (folder / "policies" / "main.cedar").write_text(POLICIES)
        (folder / "worker").mkdir(mode=0o700)
        own = own_revocations(open_state(folder / "state"), Settings())
        found: dict[str, list[float]] = {kind: [] for kind in KINDS}
        async with (
            keeper(feed, target, folder) as url,
            process("-m", "benchmarks.revocation", "--serve", feed, target, name, url) as worker,
        ):
            await worker.hear("ready")
            for number in range(rounds * len(KINDS)):
                kind = KINDS[number % len(KINDS)]
                workflow_id = f"bench-{uuid.uuid4().hex[:12]}"
                await worker.say(f"{workflow_id} {'beats' if kind == 'heartbeat' else 'sleeps'}")
                await worker.hear("began")
                # At another moment of everybody's intervals each time.
                await asyncio.sleep(0.3 + 0.7 * (number * 0.618 % 1))
                entry = revocation(workflow=workflow_id, reason="measured")
                await asyncio.to_thread(own.add, entry)
                found[kind].append((await worker.hear("ended"))["at"] - entry.at)
        return found


def line(feed: str, kind: str, seconds: Sequence[float]) -> str:
    ordered = sorted(seconds)
    p95 = ordered[min(len(ordered) - 1, round(0.95 * len(ordered)))]
    numbers = (ordered[0], statistics.median(ordered), p95, ordered[-1])
    shown = "  ".join(f"{each * 1000:7.0f}" for each in numbers)
    bound = BOUNDS[feed]
    return f"{feed:<10} {kind:<10} {shown}   {bound * 1000:5.0f}  {'kept' if ordered[-1] <= bound else 'BROKEN'}"


async def main(rounds: int, feeds: Sequence[str]) -> int:
    broken = False
    path = shutil.which("temporal")
    async with await WorkflowEnvironment.start_local(
        dev_server_existing_path=path, dev_server_log_level="error"
    ) as server:
        target = server.client.service_client.config.target_host
        head = f"From the revocation on disk to the stop of the activity, in milliseconds ({rounds} each):\n"
        for feed in feeds:
            measured = await measure(feed, target, rounds)
            if head:
                print(f"\n{head}\nfeed       activity       min   median      p95      max   bound")
            head = ""
            for kind, seconds in measured.items():
                print(line(feed, kind, seconds), flush=True)
                broken = broken or max(seconds) > BOUNDS[feed]
    return int(broken)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="From the command to the stop of a running activity.")
    parser.add_argument("--rounds", type=int, default=20, help="how often each is measured (default: 20)")
    parser.add_argument("--feed", choices=FEEDS, action="append", help="only this one")
    parser.add_argument("--serve", nargs=4, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        asyncio.run(serve(*asked.serve))
    else:
        sys.exit(asyncio.run(main(asked.rounds, asked.feed or FEEDS)))
