"""Starts the agent with one refund, on behalf of an agent of operations: ``python -m workflows.start --help``."""

import argparse
import asyncio
import sys
import uuid
from decimal import Decimal

from temporalio.client import Client, WorkflowFailureError
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.service import RPCError

from exequatur import AuthorizationPlugin, ExequaturError, Principal
from exequatur.testing import refusal_of
from workflows.activities import Refund
from workflows.agent import OperationsAgent, Plan, Step


async def start(options: argparse.Namespace) -> int:
    """Run the agent, and say how it ended."""
    principal = Principal("Agent", options.agent, parents=['Role::"operations"'])
    plugin = AuthorizationPlugin.embedded(options.policies, state_dir=options.state_dir, principal=principal)
    client = await Client.connect(options.target, data_converter=pydantic_data_converter, plugins=[plugin])
    plan = Plan([Step("refund_order", Refund(options.order, options.amount, options.reason))])
    workflow_id = f"refund-{uuid.uuid4().hex[:8]}"
    print(f"workflow {workflow_id}")
    try:
        result = await client.execute_workflow(OperationsAgent.run, plan, id=workflow_id, task_queue=options.task_queue)
    except WorkflowFailureError as err:
        refused = refusal_of(err)
        print(refused.message if refused else err.cause)
        return 1
    print(*result, sep="\n")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("order", help="o-1001 to o-1004")
    parser.add_argument("amount", type=Decimal)
    parser.add_argument("--reason", default="arrived late")
    parser.add_argument("--agent", default="ops-bot", help="on whose behalf")
    parser.add_argument("--target", default="127.0.0.1:7233", help="host:port of the Temporal server")
    parser.add_argument("--task-queue", default="operations")
    parser.add_argument("--policies", default="policies", help="folder, bundle file or address, as of the worker")
    parser.add_argument("--state-dir", default=".exequatur", help="that of the worker")
    try:
        return asyncio.run(start(parser.parse_args()))
    except (ExequaturError, RPCError, RuntimeError) as err:
        print(f"Not started: {err}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
