"""An agent without a framework whose tools are those of an MCP server: ``python -m workflows.agents.mcp_agent --help``.

There is one activity for each tool of the server, with the tool's arguments. A single activity that calls any tool
would be a single Cedar action, with a dict that no policy knows the types of.
"""

import inspect
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any, get_type_hints

from temporalio import activity, workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError

with workflow.unsafe.imports_passed_through():
    from mcp import Client, StdioServerParameters, stdio_client
    from mcp.types import CallToolResult, TextContent
    from pydantic import TypeAdapter, ValidationError
    from temporalio.contrib.pydantic import pydantic_data_converter
    from temporalio.worker import Worker

    from exequatur import action
    from workflows.agents.denial import denial
    from workflows.agents.script import Call, next_step
    from workflows.agents.stage import ROOT, SCENES, Example, Scene, Stage, main
    from workflows.agents.tools import account_of

_TIMEOUT = timedelta(seconds=30)
_MOST_STEPS = 20


@dataclass(frozen=True)
class Step:
    """What the model wants: a tool, or to answer."""

    answer: str | None = None
    tool: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)


@activity.defn
async def ask_model(task: str, results: list[str]) -> Step:
    """Answers from the script. A real application asks a model here."""
    step = next_step(task, results)
    return Step(tool=step.tool, arguments=step.arguments) if isinstance(step, Call) else Step(answer=step.text)


class HelpdeskServer:
    """The tools of the MCP server, as activities.

    Args:
        client: Connected with the server.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    @activity.defn(name="helpdesk.read_ticket")
    async def read_ticket(self, ticket_id: str) -> str:
        return await self._call("read_ticket", ticket_id=ticket_id)

    @activity.defn(name="helpdesk.refund_order")
    @action(groups=["money"], resource=account_of, resource_type="Account")
    async def refund_order(self, order_id: str, amount: Decimal, account: str) -> str:
        return await self._call("refund_order", order_id=order_id, amount=str(amount), account=account)

    @activity.defn(name="helpdesk.delete_ticket")
    async def delete_ticket(self, ticket_id: str) -> str:
        return await self._call("delete_ticket", ticket_id=ticket_id)

    async def _call(self, tool: str, **arguments: str) -> str:
        result: CallToolResult = await self._client.call_tool(tool, arguments)
        text = " ".join(part.text for part in result.content if isinstance(part, TextContent))
        return f"{tool} failed: {text}" if result.is_error else text


TOOLS: Mapping[str, Callable[..., Any]] = {
    "read_ticket": HelpdeskServer.read_ticket,
    "refund_order": HelpdeskServer.refund_order,
    "delete_ticket": HelpdeskServer.delete_ticket,
}
"""By the name that the model and the server call them."""


@workflow.defn
class McpHelpdesk:
    """Works on a ticket, as its model says."""

    @workflow.run
    async def run(self, task: str) -> str:
        results: list[str] = []
        for _ in range(_MOST_STEPS):
            step = await workflow.execute_activity(ask_model, args=[task, results], start_to_close_timeout=_TIMEOUT)
            if step.answer is not None:
                return step.answer
            results.append(await self._call(step))
        raise ApplicationError(f"the model has no answer after {_MOST_STEPS} steps")

    async def _call(self, step: Step) -> str:
        """What the tool says, or why it could not be called."""
        tool = TOOLS.get(step.tool)
        if tool is None:
            return f"there is no tool {step.tool}"
        try:
            args = _arguments(tool, step.arguments)
        except (TypeError, ValidationError) as err:
            return f"{step.tool}: {err}"
        try:
            # The server cannot tell a second attempt from a second call, so there is none.
            once = RetryPolicy(maximum_attempts=1)
            said = await workflow.execute_activity(tool, args=args, start_to_close_timeout=_TIMEOUT, retry_policy=once)
        except ActivityError as err:
            said = denial(err)
            if said is None:
                raise
        return str(said)


def _arguments(tool: Callable[..., Any], given: Mapping[str, Any]) -> list[Any]:
    """The arguments of a tool's activity, of the types that it declares.

    Raises:
        TypeError: One is missing or too many.
        ValidationError: One is of another type.
    """
    bound = inspect.signature(tool).bind(None, **given)
    hints = get_type_hints(tool)
    return [
        TypeAdapter(hints[name]).validate_python(value) for name, value in bound.arguments.items() if name != "self"
    ]


@asynccontextmanager
async def working(stage: Stage) -> AsyncIterator[None]:
    server = StdioServerParameters(
        command=sys.executable, args=["-m", "workflows.agents.mcp_server", str(stage.folder.resolve())], cwd=ROOT
    )
    with (stage.folder / "mcp.log").open("w", encoding="utf-8") as log:
        async with Client(stdio_client(server, log)) as client:
            tools = HelpdeskServer(client)
            async with Worker(
                stage.client,
                task_queue=stage.queue,
                workflows=[McpHelpdesk],
                activities=[ask_model, tools.read_ticket, tools.refund_order, tools.delete_ticket],
            ):
                yield


EXAMPLE = Example(
    "Tools of an MCP server",
    McpHelpdesk,
    list,
    working,
    scenes=(
        *SCENES,
        Scene(
            "A poisoned ticket, whose text asks for a tool that nobody may use",
            "t-18",
            denied="delete_ticket",
            paid=("o-1003", "5.00", "acc-alice"),
        ),
    ),
    converter=pydantic_data_converter,
)

if __name__ == "__main__":
    sys.exit(main("workflows.agents.mcp_agent"))
