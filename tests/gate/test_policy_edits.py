"""Edited policies are in force in running workers within a second; broken ones never are."""

import asyncio
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity

from exequatur import AuthorizationPlugin
from exequatur.errors import PolicyError
from exequatur.policy.folder import PolicyFolder
from tests.gate.conftest import PERMIT_ALL, Stage, deeds, failure_of, happened
from tests.gate.single import OneActivity, eventually, start_one

FREEZE = PERMIT_ALL + '@id("freeze") @reason("it is frozen") forbid(principal, action == Action::"act", resource);\n'


@activity.defn
async def act() -> str:
    happened("ran")
    return "done"


async def in_force(stage: Stage, sequence: int) -> None:
    """Wait for the bundle; a second is what is promised, the rest is for a busy machine."""
    await eventually(lambda: stage.plugin.gate.policy.sequence >= sequence)


async def refused(stage: Stage, caplog: pytest.LogCaptureFixture) -> str:
    """Wait for the refusal in the log."""

    def errors() -> list[logging.LogRecord]:
        return [record for record in caplog.records if "were refused" in record.getMessage()]

    await eventually(errors)
    assert errors()[0].levelno == logging.ERROR
    return errors()[0].getMessage()


async def test_an_edit_is_in_force_in_a_running_worker(stage: Callable[..., Any]) -> None:
    s = await stage()
    async with s.worker([OneActivity], [act]):
        assert await (await start_one(s, act)).result() == "done"
        s.write(FREEZE)
        await in_force(s, 2)
        denied = await start_one(s, act)
        failure = await failure_of(denied)
        s.write(PERMIT_ALL)
        await in_force(s, 3)
        assert await (await start_one(s, act)).result() == "done"
    assert failure.type == "AuthorizationDenied"
    assert "freeze: it is frozen" in failure.message
    assert deeds(denied.id) == []


async def test_a_file_that_is_added_or_removed_is_an_edit(stage: Callable[..., Any]) -> None:
    s = await stage()
    async with s.worker([OneActivity], [act]):
        s.write('forbid(principal, action == Action::"act", resource);', "more.cedar")
        await in_force(s, 2)
        assert (await failure_of(await start_one(s, act))).type == "AuthorizationDenied"
        (s.policies / "more.cedar").unlink()
        await in_force(s, 3)
        assert await (await start_one(s, act)).result() == "done"


async def test_a_bundle_that_does_not_parse_keeps_the_old_one_in_force(
    stage: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    s = await stage(FREEZE)
    before = s.plugin.gate.policy
    async with s.worker([OneActivity], [act]):
        s.write("permit(principal, action, resource")
        message = await refused(s, caplog)
        handle = await start_one(s, act)
        assert (await failure_of(handle)).type == "AuthorizationDenied"
        assert s.plugin.gate.policy is before
    assert "main.cedar" in message
    assert before.bundle.digest in message
    assert deeds(handle.id) == []


SCHEMA = """
entity Agent;
entity Workflow;
action "workflow.start", act appliesTo { principal: [Agent], resource: [Workflow] };
"""


async def test_a_bundle_that_does_not_validate_keeps_the_old_one_in_force(
    stage: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    s = await stage()
    async with s.worker([OneActivity], [act]):
        s.write(SCHEMA, "schema.cedarschema")
        await in_force(s, 2)
        before = s.plugin.gate.policy
        s.write('permit(principal, action == Action::"misspelt", resource);')
        message = await refused(s, caplog)
        assert s.plugin.gate.policy is before
    assert "misspelt" in message


async def test_a_folder_that_vanishes_keeps_the_old_bundle_in_force_until_it_is_back(
    stage: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    s = await stage()
    before = s.plugin.gate.policy
    async with s.worker([OneActivity], [act]):
        shutil.rmtree(s.policies)
        message = await refused(s, caplog)
        assert await (await start_one(s, act)).result() == "done"
        assert s.plugin.gate.policy is before
        s.policies.mkdir()
        s.write(FREEZE)
        await in_force(s, 2)
        assert (await failure_of(await start_one(s, act))).type == "AuthorizationDenied"
    assert str(s.policies) in message


async def test_a_folder_without_a_policy_keeps_the_old_bundle_in_force(
    stage: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    s = await stage(FREEZE)
    before = s.plugin.gate.policy
    async with s.worker([OneActivity], [act]):
        (s.policies / "main.cedar").unlink()
        await refused(s, caplog)
        assert s.plugin.gate.policy is before


async def test_a_file_that_is_written_in_pieces_is_never_in_force_by_half(stage: Callable[..., Any]) -> None:
    s = await stage(policy_poll_interval="100ms")
    seen: list[str] = []
    adopt = s.plugin._serving._watch._on_change
    s.plugin._serving._watch._on_change = lambda offer: (seen.append(offer.bundle.digest), adopt(offer))
    async with s.worker([OneActivity], [act]):
        # Each piece parses by itself, and each but the last permits what the whole forbids.
        text = PERMIT_ALL
        for number in range(12):
            text += f'@id("p{number}") permit(principal, action == Action::"x{number}", resource);\n'
            s.write(text)
            await asyncio.sleep(0.04)
        s.write(text + 'forbid(principal, action == Action::"act", resource);\n')
        await in_force(s, 2)
        handle = await start_one(s, act)
        assert (await failure_of(handle)).type == "AuthorizationDenied"
    assert len(seen) == 1
    assert deeds(handle.id) == []


@pytest.mark.rule("F6")
async def test_a_policy_that_is_edited_while_its_decision_is_being_written_decides(stage: Callable[..., Any]) -> None:
    s = await stage()
    async with s.worker([OneActivity], [act]):
        (s.path / "later").mkdir()
        (s.path / "later" / "main.cedar").write_text(FREEZE)
        later = PolicyFolder(s.path / "later").load()
        await eventually(lambda: s.plugin.gate.journal)
        journal = s.plugin.gate.require_journal()
        written = journal.append_decision

        async def slow(*args: Any, **named: Any) -> Any:
            entry = await written(*args, **named)
            s.plugin.gate.put_in_force(later)
            return entry

        journal.append_decision = slow
        handle = await start_one(s, act)
        failure = await failure_of(handle)
    assert failure.type == "AuthorizationDenied"
    assert deeds(handle.id) == []
    # Both decisions are on record, and the last one counts.
    assert [b'"decision":"allow"' in record.body for record in s.records("decision")] == [True, False]


def test_a_folder_that_is_not_there_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="nowhere"):
        AuthorizationPlugin.embedded(tmp_path / "nowhere", state_dir=tmp_path / "state")


def test_policies_that_do_not_parse_are_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "bad.cedar").write_text("permit(")
    with pytest.raises(PolicyError, match=r"bad\.cedar"):
        AuthorizationPlugin.embedded(tmp_path, state_dir=tmp_path / "state")


async def test_a_client_without_a_worker_starts_by_the_edited_policies(stage: Callable[..., Any]) -> None:
    s = await stage()
    await start_one(s, act)
    s.write('permit(principal, action == Action::"other", resource);')
    with pytest.raises(Exception, match=r"workflow\.start"):
        await start_one(s, act)
