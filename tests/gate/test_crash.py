"""A worker that is killed in mid-activity loses no decision, and the next one goes on.

This file is also the program of the worker that is killed: ``python test_crash.py TARGET POLICIES STATE QUEUE``.
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import Client
from temporalio.worker import Worker

from exequatur import AuthorizationPlugin
from exequatur.errors import JournalError, ReplayedRequestError
from exequatur.lineage.journal import Journal
from exequatur.lineage.record import read, verify

ROOT = Path(__file__).parents[2]


@activity.defn
async def migrate(folder: str) -> str:
    """Goes on for ever in its first attempt, and resumes in the next."""
    info = activity.info()
    (Path(folder) / f"attempt-{info.attempt}").write_text(str(os.getpid()))
    if info.attempt > 1:
        return f"resumed at {list(info.heartbeat_details)}"
    while True:
        activity.heartbeat("page 7")
        await asyncio.sleep(0.05)


async def serve(target: str, policies: str, state: str, queue: str) -> None:
    plugin = AuthorizationPlugin.embedded(policies, state_dir=state)
    client = await Client.connect(target, plugins=[plugin])
    await Worker(client, task_queue=queue, activities=[migrate]).run()


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
else:
    from tests.gate.conftest import Stage
    from tests.gate.single import OneActivity, eventually, start_one


@asynccontextmanager
async def process(stage: "Stage") -> Any:
    """A worker in a process of its own."""
    arguments = [stage.target, str(stage.policies), str(stage.state), stage.queue]
    worker = subprocess.Popen([sys.executable, __file__, *arguments], cwd=ROOT)  # noqa: ASYNC220
    try:
        yield worker
    finally:
        worker.kill()
        worker.wait()


async def killed(s: "Stage", folder: Path) -> tuple[Any, Path]:
    """Start an activity in another process and kill that with signal 9 while it runs."""
    async with process(s) as worker:
        handle = await start_one(s, migrate, str(folder), attempts=3, heartbeat=2)
        await eventually((folder / "attempt-1").exists)
        assert int((folder / "attempt-1").read_text()) == worker.pid
        [file] = [path for path in (s.state / "journal").glob("*.db") if "decision" in kinds(path)]
        before = len(list(read(file)))
        # The heartbeat is on the server, so the next attempt has something to resume at.
        while not (await handle.describe()).raw_description.pending_activities[0].heartbeat_details.payloads:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    assert verify(file) >= before
    assert kinds(file).count("decision") == 1
    return handle, file


def kinds(path: Path) -> list[str]:
    try:
        return [record.kind for record in read(path)]
    except JournalError:
        return []


async def test_a_worker_killed_in_mid_activity_loses_no_decision_and_another_goes_on(
    stage: Callable[..., Any], tmp_path: Path
) -> None:
    s = await stage()
    async with s.worker([OneActivity], (), no_remote_activities=True):
        handle, file = await killed(s, tmp_path)
        log = next(read(file)).log_id
        async with process(s) as second:
            assert await asyncio.wait_for(handle.result(), 40) == "resumed at ['page 7']"
            assert int((tmp_path / "attempt-2").read_text()) == second.pid
            # The new process took the journal over: one log, both decisions, one chain.
            await eventually(lambda: kinds(file).count("receipt") == 1)
    records = list(read(file))
    assert verify(file) == len(records)
    assert {record.log_id for record in records} == {log}
    # Each process begins with the policies that its decisions stand on.
    records = [record for record in records if record.kind != "bundle"]
    assert [(record.kind, record.attempt) for record in records[:2]] == [("decision", 1), ("decision", 2)]
    assert records[0].request == records[1].request


async def test_a_request_that_a_killed_worker_used_stays_used(stage: Callable[..., Any], tmp_path: Path) -> None:
    s = await stage()
    async with s.worker([OneActivity], (), no_remote_activities=True):
        handle, file = await killed(s, tmp_path)
        await handle.terminate()
        decision = next(record for record in read(file) if record.kind == "decision")
        used = {"request": decision.request, "run": decision.run, "attempt": decision.attempt}
        # The first journal is still in use, so this is the killed worker's.
        with Journal.open(file.parent) as opened:
            assert opened.log_id == decision.log_id
            with pytest.raises(ReplayedRequestError):
                await opened.append_decision(b"{}", **used)
