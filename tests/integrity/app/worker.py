"""A worker of its own process: ``python -S worker.py TARGET QUEUE POLICIES STATE SETTINGS``."""

import asyncio
import json
import logging
import sys

from shop.work import Errand, act, wait_long
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from exequatur import AuthorizationPlugin, Settings


async def main(target: str, queue: str, policies: str, state: str, settings: str) -> None:
    plugin = AuthorizationPlugin.embedded(policies, state_dir=state, settings=Settings(**json.loads(settings)))
    client = await Client.connect(target, plugins=[plugin])
    async with Worker(
        client,
        task_queue=queue,
        workflows=[Errand],
        activities=[wait_long, act],
        workflow_runner=UnsandboxedWorkflowRunner(),
    ):
        print("running", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    logging.basicConfig(level="WARNING")
    asyncio.run(main(*sys.argv[1:]))
