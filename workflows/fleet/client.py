"""A client of the fleet, in a process of its own: starts runs, and prints one line of JSON for each that has ended.

``python -m workflows.fleet.client --refund o-1001:42.50 ...``. Its settings are in the file that ``EXEQUATUR_CONFIG``
names.
"""

import argparse
import asyncio
import json
import sys
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.exceptions import ApplicationError

from exequatur import AuthorizationPlugin, ExequaturError
from exequatur.identity.sources import TokenFile
from workflows.activities import Migration, Refund
from workflows.agent import LedgerMigration, OperationsAgent, Plan, Step

_PATIENCE = timedelta(seconds=60)


async def play(options: argparse.Namespace) -> None:
    """Start the runs, some time apart, and tell how each of them ended."""
    plugin = AuthorizationPlugin(options.authority, identity=TokenFile(options.token), state_dir=options.state_dir)
    client = await Client.connect(options.target, data_converter=pydantic_data_converter, plugins=[plugin])
    runs = []
    for number in range(options.count):
        name = options.id if options.count == 1 else f"{options.id}-{number}"
        runs.append(asyncio.ensure_future(_run(client, name, options)))
        await asyncio.sleep(options.every)
    await asyncio.gather(*runs)


async def _run(client: Client, name: str, options: argparse.Namespace) -> None:
    told: dict[str, Any] = {"id": name}
    try:
        handle = await _started(client, name, options)
    except ApplicationError as err:
        told |= {"started": False, "how": err.type, "message": err.message}
    else:
        told |= {"started": True, **await _ended(handle)}
    print(json.dumps(told), flush=True)


async def _started(client: Client, name: str, options: argparse.Namespace) -> WorkflowHandle[Any, Any]:
    place: dict[str, Any] = {"id": name, "task_queue": options.task_queue, "execution_timeout": _PATIENCE}
    if options.migrate:
        return await client.start_workflow(LedgerMigration.run, Migration(batch=1, pause=0.05), **place)
    steps = [
        Step("refund_order", Refund(order, Decimal(amount), "arrived broken"))
        for order, _, amount in (each.partition(":") for each in options.refund)
    ]
    return await client.start_workflow(OperationsAgent.run, Plan(steps), **place)


async def _ended(handle: WorkflowHandle[Any, Any]) -> dict[str, Any]:
    try:
        await handle.result()
    except WorkflowFailureError as err:
        cause: BaseException | None = err.cause
        how, message, policies = type(err.cause).__name__, str(err.cause), []
        while cause is not None:
            if isinstance(cause, ApplicationError):
                details = cause.details[0] if cause.details and isinstance(cause.details[0], dict) else {}
                how, message = cause.type or how, cause.message
                policies = [policy["id"] for policy in details.get("policies", ())]
            cause = cause.__cause__
        return {"how": how, "message": message, "policies": policies}
    return {"how": "completed"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", required=True, help="host:port of the Temporal server")
    parser.add_argument("--task-queue", required=True)
    parser.add_argument("--authority", required=True, help="URL of the authority service")
    parser.add_argument("--token", type=Path, required=True, help="file with the token of whoever asks")
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--id", required=True, help="workflow id, and the beginning of those of several runs")
    parser.add_argument("--count", type=int, default=1, help="how many runs")
    parser.add_argument("--every", type=float, default=0.0, help="seconds between two starts")
    parser.add_argument("--refund", action="append", default=[], metavar="ORDER:AMOUNT")
    parser.add_argument("--migrate", action="store_true", help="run a long migration instead")
    options = parser.parse_args()
    try:
        asyncio.run(play(options))
    except (ExequaturError, OSError, RuntimeError) as err:
        print(f"The client cannot go on: {err}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
