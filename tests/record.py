"""The workflows behind ``tests/histories`` and how their histories are recorded: ``python -m tests.record``.

A history is recorded again only when a statement's format changes. Otherwise the recorded ones stay, because what they
prove is that runs of an earlier version replay. The public keys that verify them are recorded beside them.
"""

import asyncio
import json
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio import activity, workflow
from temporalio.client import Client, WorkflowFailureError
from temporalio.exceptions import ActivityError
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

with workflow.unsafe.imports_passed_through():
    from exequatur import AuthorizationPlugin, Principal, Settings

HISTORIES = Path(__file__).parent / "histories"
TRUST = HISTORIES / "trust.jwks"
TIMEOUT = timedelta(seconds=20)
QUEUE = "recorded"
POLICIES = """
@id("all") permit(principal, action, resource);
@id("no-deletion") @reason("records are kept") forbid(principal, action == Action::"delete", resource);
"""


@activity.defn
def step(number: int) -> int:
    return number + 1


@activity.defn
def delete(number: int) -> int:
    return number


@activity.defn
async def long() -> str:
    while True:
        activity.heartbeat("working")
        await asyncio.sleep(0.05)


@workflow.defn
class Sequential:
    @workflow.run
    async def run(self, number: int) -> int:
        for _ in range(3):
            number = await workflow.execute_activity(step, number, start_to_close_timeout=TIMEOUT)
        return number


@workflow.defn
class FanOut:
    @workflow.run
    async def run(self, width: int) -> int:
        results = await asyncio.gather(
            *(workflow.execute_activity(step, number, start_to_close_timeout=TIMEOUT) for number in range(width))
        )
        return sum(results)


@workflow.defn
class Local:
    @workflow.run
    async def run(self, number: int) -> int:
        number = await workflow.execute_local_activity(step, number, start_to_close_timeout=TIMEOUT)
        return await workflow.execute_activity(step, number, start_to_close_timeout=TIMEOUT)


@workflow.defn
class WithChild:
    @workflow.run
    async def run(self, number: int) -> int:
        return await workflow.execute_child_workflow(Sequential.run, number, id=f"{workflow.info().workflow_id}-child")


@workflow.defn
class Continued:
    @workflow.run
    async def run(self, number: int) -> int:
        number = await workflow.execute_activity(step, number, start_to_close_timeout=TIMEOUT)
        if number < 3:
            workflow.continue_as_new(number)
        return number


@workflow.defn
class Denied:
    """Takes another branch when it is denied, which is recorded."""

    @workflow.run
    async def run(self, number: int) -> int:
        try:
            return await workflow.execute_activity(delete, number, start_to_close_timeout=TIMEOUT)
        except ActivityError:
            return await workflow.execute_activity(step, number, start_to_close_timeout=TIMEOUT)


@workflow.defn
class Revoked:
    @workflow.run
    async def run(self) -> str:
        return await workflow.execute_activity(
            long, start_to_close_timeout=TIMEOUT, heartbeat_timeout=timedelta(seconds=5)
        )


WORKFLOWS = [Sequential, FanOut, Local, WithChild, Continued, Denied, Revoked]


async def record() -> None:
    """Run every scenario on a dev server of its own and write down the histories."""
    HISTORIES.mkdir(exist_ok=True)
    environment = await WorkflowEnvironment.start_local(dev_server_existing_path=shutil.which("temporal"))
    try:
        with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(20) as pool:
            policies, state = Path(folder) / "policies", Path(folder) / "state"
            policies.mkdir()
            (policies / "main.cedar").write_text(POLICIES)
            plugin = AuthorizationPlugin.embedded(
                policies,
                state_dir=state,
                principal=Principal("Agent", "recorder"),
                settings=Settings(allow_ungoverned=("Sequential",)),
            )
            plain = environment.client
            client = await Client.connect(plain.service_client.config.target_host, plugins=[plugin])
            async with Worker(
                client,
                task_queue=QUEUE,
                workflows=WORKFLOWS,
                activities=[step, delete, long],
                activity_executor=pool,
            ):
                await _scenarios(plugin, client, plain)
            TRUST.write_bytes((state / "trust.jwks").read_bytes())
    finally:
        await environment.shutdown()


async def _scenarios(plugin: AuthorizationPlugin, client: Client, plain: Client) -> None:
    async def run(name: str, start: Any, *args: Any, by: Client = client) -> None:
        handle = await by.start_workflow(start, args=args, id=name, task_queue=QUEUE)
        if name == "revoked":
            await asyncio.sleep(0.5)
            plugin.revoke(workflow=name, reason="recorded")
        first = plain.get_workflow_handle(name, run_id=handle.result_run_id)
        try:
            await handle.result()
        except WorkflowFailureError:
            if name != "revoked":
                raise
        await _write(name, first)
        if name == "continued":
            await _write("continued.last", plain.get_workflow_handle(name))
        if name == "child":
            await _write("child-child", plain.get_workflow_handle(f"{name}-child"))

    await run("sequential", Sequential.run, 1)
    await run("fan-out", FanOut.run, 5)
    await run("local", Local.run, 1)
    await run("child", WithChild.run, 1)
    await run("continued", Continued.run, 1)
    await run("denied", Denied.run, 1)
    await run("revoked", Revoked.run)
    await run("ungoverned", Sequential.run, 1, by=plain)


async def _write(name: str, handle: Any) -> None:
    """Write a history under its workflow id and, after a dot, which run of it this is."""
    history = json.loads((await handle.fetch_history()).to_json())
    (HISTORIES / f"{name}.json").write_text(json.dumps(history, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    asyncio.run(record())
