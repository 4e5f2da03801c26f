"""What holds for the tools of an MCP server."""

import inspect
import json
from typing import Any

from mcp import Client
from temporalio import activity
from temporalio.worker import Worker

from tests.agents.conftest import SetStage, example_of
from workflows.agents.mcp_agent import TOOLS, HelpdeskServer, McpHelpdesk, Step
from workflows.agents.mcp_server import CALLS, make_server
from workflows.agents.stage import Stage, work_on


def calls(stage: Stage) -> list[dict[str, Any]]:
    """What has reached the server."""
    lines = (stage.folder / CALLS).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


async def test_a_tool_that_no_policy_permits_is_denied_before_the_server_sees_it(set_stage: SetStage) -> None:
    example = example_of("mcp")
    stage = await set_stage(example)
    async with example.working(stage):
        workflow_id, answer = await work_on(example, stage, "t-18")

    [denied] = [each for each in stage.decisions(workflow_id) if each.decision != "allow"]
    assert (denied.activity, denied.policies) == ("helpdesk.delete_ticket", ("tickets-stay",))
    assert denied.reason in answer
    assert [each["tool"] for each in calls(stage)] == ["read_ticket", "refund_order"]


async def test_an_injected_argument_is_denied_before_the_server_sees_it(set_stage: SetStage) -> None:
    example = example_of("mcp")
    stage = await set_stage(example)
    async with example.working(stage):
        await work_on(example, stage, "t-17")

    assert [each["account"] for each in calls(stage) if each["tool"] == "refund_order"] == ["acc-alice"]


async def test_every_tool_of_the_server_is_an_activity_with_the_same_arguments(set_stage: SetStage) -> None:
    stage = await set_stage(example_of("mcp"))
    async with Client(make_server(stage.folder)) as client:
        tools = (await client.list_tools()).tools

    assert {each.name: list(each.input_schema["properties"]) for each in tools} == {
        name: list(inspect.signature(fn).parameters)[1:] for name, fn in TOOLS.items()
    }


async def test_a_call_that_cannot_be_made_is_told_to_the_model(set_stage: SetStage) -> None:
    told: list[list[str]] = []
    wishes = [
        Step(tool="format_disk"),
        Step(tool="read_ticket", arguments={"ticket_id": "t-16", "as": "root"}),
        Step(tool="refund_order", arguments={"order_id": "o-1", "amount": "a lot", "account": "acc-alice"}),
        Step(tool="read_ticket", arguments={"ticket_id": "t-99"}),
        Step(answer="I give up."),
    ]

    @activity.defn
    async def ask_model(task: str, results: list[str]) -> Step:
        told.append(results)
        return wishes[len(results)]

    example = example_of("mcp")
    stage = await set_stage(example)
    async with Client(make_server(stage.folder)) as client:
        tools = HelpdeskServer(client)
        async with Worker(
            stage.client,
            task_queue=stage.queue,
            workflows=[McpHelpdesk],
            activities=[ask_model, tools.read_ticket, tools.refund_order],
        ):
            _, answer = await work_on(example, stage, "t-16")

    assert answer == "I give up."
    no_tool, too_many, no_amount, no_ticket = told[-1]
    assert no_tool == "there is no tool format_disk"
    assert "unexpected keyword argument 'as'" in too_many
    assert "should be a valid decimal" in no_amount
    assert no_ticket == "there is no ticket t-99"
    assert [each["tool"] for each in calls(stage)] == ["read_ticket"]
