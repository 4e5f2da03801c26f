"""What holds for the OpenAI Agents SDK alone: a plugin that brings activities, interceptors and a data converter."""

import asyncio
from pathlib import Path

import pytest
from temporalio.client import Client, WorkflowFailureError
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from exequatur import PolicyError, refusal_of
from tests.agents.conftest import SetStage, example_of
from tests.agents.test_examples import plugins_of
from workflows.agents import openai_agent
from workflows.agents.stage import Stage, work_on
from workflows.agents.tools import HelpdeskTools


async def test_the_two_plugins_work_in_either_order(set_stage: SetStage, target: str) -> None:
    example = example_of("openai")
    usual = await set_stage(example)
    turned = Stage(usual.folder, await Client.connect(target, plugins=list(reversed(plugins_of(usual)))))
    async with example.working(turned):
        workflow_id, answer = await work_on(example, turned, "t-17")

    assert "refunded 42.50 of o-1002 to acc-alice" in answer
    assert [each.tool for each in turned.decisions(workflow_id) if each.decision == "deny"] == ["refund_order"]
    assert turned.helpdesk.paid() == [("o-1002", "42.50", "acc-alice")]


async def test_without_the_wrapper_a_denial_ends_the_run(set_stage: SetStage, monkeypatch: pytest.MonkeyPatch) -> None:
    # The plugin passes the activity's failure on, so the example's `told` is what makes it a message.
    monkeypatch.setattr(openai_agent, "told", lambda tool: tool)
    example = example_of("openai")
    stage = await set_stage(example)
    tools = HelpdeskTools(stage.helpdesk)
    async with Worker(
        stage.client,
        task_queue=stage.queue,
        workflows=[openai_agent.OpenAIHelpdesk],
        activities=[tools.read_ticket, tools.refund_order],
        workflow_runner=UnsandboxedWorkflowRunner(),  # the sandbox would import the module anew, unpatched
    ):
        with pytest.raises(WorkflowFailureError) as failed:
            await work_on(example, stage, "t-17")

    refusal = refusal_of(failed.value)
    assert refusal is not None
    assert refusal.type == "AuthorizationDenied"
    assert stage.helpdesk.paid() == []


async def test_a_bundle_that_does_not_know_the_plugins_activities_judges_no_agent(
    set_stage: SetStage, policies: Path
) -> None:
    schema = policies / "schema.cedarschema"
    text = schema.read_text(encoding="utf-8")
    schema.write_text(text.replace('action "invoke_model_activity"', 'action "invoke_model"'), encoding="utf-8")
    models = policies / "models.cedar"
    text = models.read_text(encoding="utf-8")
    models.write_text(text.replace('Action::"invoke_model_activity"', 'Action::"invoke_model"'), encoding="utf-8")
    stage = await set_stage(example_of("openai"))

    with pytest.raises(PolicyError, match="invoke_model_activity: the bundle has no action for it"):
        await asyncio.wait_for(openai_agent.working(stage).run(), 60)
