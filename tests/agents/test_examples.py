"""What holds for agents on every framework."""

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import WorkflowFailureError
from temporalio.worker import Replayer

from exequatur import AuthorizationPlugin, refusal_of
from exequatur.audit.history import read_history
from exequatur.audit.report import Verdict
from exequatur.audit.sources import OpenEvidence
from exequatur.audit.trust import read_trust
from exequatur.audit.verify import audit_run
from tests.agents.conftest import MODULES, SetStage
from workflows.agents.stage import ROOT, Example, Stage, work_on

MODEL = {"invoke_model_activity", "agent__helpdesk__model_request", "ask_model"}
CLEAN, POISONED = "t-16", "t-17"


async def scheduled(stage: Stage, workflow_id: str) -> list[str]:
    """The activities that a run asked for, in their order."""
    history = await stage.client.get_workflow_handle(workflow_id).fetch_history()
    return [
        event.activity_task_scheduled_event_attributes.activity_type.name
        for event in history.events
        if event.HasField("activity_task_scheduled_event_attributes")
    ]


def plugins_of(stage: Stage) -> list[Any]:
    return list(stage.client.config()["plugins"])


def gate_of(stage: Stage) -> AuthorizationPlugin:
    [plugin] = [each for each in plugins_of(stage) if isinstance(each, AuthorizationPlugin)]
    return plugin


async def test_permitted_tools_run_and_every_model_and_tool_call_is_decided(
    example: Example, set_stage: SetStage
) -> None:
    stage = await set_stage(example)
    async with example.working(stage):
        workflow_id, answer = await work_on(example, stage, CLEAN)

    assert answer == "Done: refunded 19.90 of o-1001 to acc-alice."
    assert stage.helpdesk.paid() == [("o-1001", "19.90", "acc-alice")]
    decisions = stage.decisions(workflow_id)
    assert {each.decision for each in decisions} == {"allow"}
    assert [each.activity for each in decisions] == await scheduled(stage, workflow_id)
    assert ["model" if each.activity in MODEL else each.tool for each in decisions] == [
        "model",
        "read_ticket",
        "model",
        "refund_order",
        "model",
    ]


async def test_an_injected_tool_call_is_denied_and_the_agent_is_told_and_goes_on(
    example: Example, set_stage: SetStage
) -> None:
    stage = await set_stage(example)
    async with example.working(stage):
        workflow_id, answer = await work_on(example, stage, POISONED)

    decisions = stage.decisions(workflow_id)
    [denied] = [each for each in decisions if each.decision != "allow"]
    assert (denied.decision, denied.tool, denied.policies) == ("deny", "refund_order", ("refunds-to-the-customer",))
    # The model was asked again after the denial, with its sentence, and acted on it.
    assert denied.reason in answer
    assert "money goes back to an account of the customer that the agent works for" in answer
    after = decisions[decisions.index(denied) + 1 :]
    assert ["model" if each.activity in MODEL else each.tool for each in after] == ["model", "refund_order", "model"]
    assert stage.helpdesk.paid() == [("o-1002", "42.50", "acc-alice")]
    assert [each.activity for each in decisions] == await scheduled(stage, workflow_id)


async def test_a_model_that_is_not_permitted_is_not_asked(
    example: Example, set_stage: SetStage, policies: Path
) -> None:
    file = policies / "models.cedar"
    text = file.read_text(encoding="utf-8")
    assert 'permit (\n  principal in Role::"support"' in text
    file.write_text(text.replace('principal in Role::"support"', 'principal in Role::"nobody"'), encoding="utf-8")
    stage = await set_stage(example)

    async with example.working(stage):
        with pytest.raises(WorkflowFailureError) as failed:
            await work_on(example, stage, CLEAN)

    refusal = refusal_of(failed.value)
    assert refusal is not None
    assert refusal.type == "AuthorizationDenied"
    assert refusal.activity in MODEL
    assert stage.helpdesk.paid() == []


async def test_a_revoked_tool_ends_the_run_and_is_nothing_for_the_model_to_reason_about(
    example: Example, set_stage: SetStage
) -> None:
    stage = await set_stage(example)
    for activity in ("refund_order", "helpdesk.refund_order"):
        gate_of(stage).revoke(activity=activity, reason="the bank called")

    async with example.working(stage):
        with pytest.raises(WorkflowFailureError) as failed:
            await work_on(example, stage, CLEAN)

    refusal = refusal_of(failed.value)
    assert refusal is not None
    assert refusal.type != "AuthorizationDenied"
    assert "the bank called" in refusal.message
    assert stage.helpdesk.paid() == []


async def test_a_governed_run_of_an_agent_replays(example: Example, set_stage: SetStage) -> None:
    stage = await set_stage(example)
    async with example.working(stage):
        workflow_id, _ = await work_on(example, stage, POISONED)
    history = await stage.client.get_workflow_handle(workflow_id).fetch_history()

    await Replayer(
        workflows=[example.workflow], plugins=plugins_of(stage), data_converter=example.converter
    ).replay_workflow(history)


async def test_the_audit_verifies_the_run_of_an_agent_and_decides_again(example: Example, set_stage: SetStage) -> None:
    stage = await set_stage(example)
    async with example.working(stage):
        workflow_id, _ = await work_on(example, stage, POISONED)
    history = await stage.client.get_workflow_handle(workflow_id).fetch_history()
    file = stage.folder / "history.json"
    file.write_text(history.to_json(), encoding="utf-8")

    state = stage.folder / "state"
    with OpenEvidence([str(state)]) as evidence:
        report = audit_run(read_history(file), evidence, read_trust(state / "trust.jwks"))

    assert report.verdict is Verdict.VERIFIED, report.findings
    decided = [each for activity in report.activities for each in activity.decisions]
    assert len(decided) == len(stage.decisions(workflow_id))
    assert all(each.recomputed is True for each in decided)


async def test_the_examples_run_as_the_documentation_says(tmp_path: Path) -> None:
    async def run(name: str, module: str) -> tuple[int | None, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", module, "--folder", str(tmp_path / name)),
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await asyncio.wait_for(process.communicate(), 120)
        return process.returncode, out.decode()

    for code, out in await asyncio.gather(*(run(name, module) for name, module in MODULES.items())):
        assert code == 0, out
        assert "FAILED" not in out
        assert "Traceback" not in out
        assert "forbidden by policy refunds-to-the-customer" in " ".join(out.split())
