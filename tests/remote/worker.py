"""A worker in a process of its own: ``python -m tests.remote.worker TARGET AUTHORITY STATE KEYS QUEUE DEEDS``.

It writes a line to ``DEEDS`` for every body that ran, and says ``ready`` once it can authorize.
"""

import asyncio
import os
import sys
import time
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.worker import Worker

with workflow.unsafe.imports_passed_through():
    from exequatur import AuthorizationPlugin, Principal, Settings

STEPS = 4
TIMEOUT = timedelta(seconds=60)
RETRY = RetryPolicy(initial_interval=timedelta(milliseconds=200), backoff_coefficient=1.0)


def _note(what: str) -> None:
    descriptor = os.open(sys.argv[6], os.O_WRONLY | os.O_APPEND)
    try:
        os.write(descriptor, f"{activity.info().workflow_id} {what}\n".encode())
    finally:
        os.close(descriptor)


@activity.defn
async def step(number: int) -> int:
    _note(str(number))
    return number + 1


@activity.defn
async def delete(number: int) -> int:
    _note("deleted")
    return number


@workflow.defn
class Steps:
    """Some steps with pauses between them; and then, if it is told to, what no policy permits."""

    @workflow.run
    async def run(self, pause: float, deletes: bool) -> int:
        number = 0
        for _ in range(STEPS):
            number = await workflow.execute_activity(step, number, start_to_close_timeout=TIMEOUT, retry_policy=RETRY)
            await asyncio.sleep(pause)
        if deletes:
            await workflow.execute_activity(delete, number, start_to_close_timeout=TIMEOUT, retry_policy=RETRY)
        return number


def _until_told(plugin: AuthorizationPlugin) -> None:
    while plugin.gate.unavailable() is not None:
        time.sleep(0.05)
    print("ready", flush=True)
    sys.stdin.read()


async def main() -> None:
    target, authority, state, keys, queue, _ = sys.argv[1:]
    plugin = AuthorizationPlugin(
        authority,
        principal=Principal("Service", "shop"),
        state_dir=state,
        settings=Settings(policy_keys=keys, policy_fetch_interval="300ms", unavailable_retry_delay="200ms"),
    )
    client = await Client.connect(target, plugins=[plugin])
    async with Worker(client, task_queue=queue, workflows=[Steps], activities=[step, delete]):
        await asyncio.to_thread(_until_told, plugin)


if __name__ == "__main__":
    asyncio.run(main())
