"""What holds for Pydantic AI alone: its tools run in the workflow, and await their activities there."""

import asyncio
from pathlib import Path

import pytest
from temporalio import activity
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import CancelledError
from temporalio.worker import Worker

from tests.agents.conftest import SetStage, example_of
from workflows.agents.pydantic_agent import PydanticHelpdesk

CANCELS = '@id("cancels") permit (principal in Role::"support", action == Action::"workflow.cancel", resource);'


async def test_an_agent_is_cancelled_while_its_tool_works(set_stage: SetStage, policies: Path) -> None:
    (policies / "cancels.cedar").write_text(CANCELS, encoding="utf-8")
    begun = asyncio.Event()

    @activity.defn
    async def read_ticket(ticket_id: str) -> str:
        begun.set()
        while True:
            activity.heartbeat()
            await asyncio.sleep(0.05)

    stage = await set_stage(example_of("pydantic"))
    async with Worker(stage.client, task_queue=stage.queue, workflows=[PydanticHelpdesk], activities=[read_ticket]):
        handle = await stage.client.start_workflow(
            PydanticHelpdesk.run, "Work on ticket t-16.", id=stage.queue, task_queue=stage.queue
        )
        await asyncio.wait_for(begun.wait(), 60)
        await handle.cancel()
        with pytest.raises(WorkflowFailureError) as failed:
            await asyncio.wait_for(handle.result(), 60)

    assert isinstance(failed.value.cause, CancelledError)
