"""Decisions that are made more than once: what was shown or recorded the first time still counts."""

from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from temporalio import activity, workflow
from temporalio.api.common.v1 import Payload

from exequatur.gate.wire import START_HEADER
from exequatur.policy.bundle import PolicyBundle
from tests.gate.conftest import PERMIT_ALL, deeds, failure_of, happened
from tests.gate.single import OneActivity, eventually, start_one

TIMEOUT = timedelta(seconds=60)

_failed_once: dict[str, int] = defaultdict(int)


@activity.defn
async def act(what: str) -> str:
    happened(what)
    return what


@workflow.defn
class FailsItsTaskOnce:
    """Its first workflow task fails after the local activity ran, so that Temporal runs that again from attempt 1."""

    @workflow.run
    async def run(self, what: str) -> str:
        result = await workflow.execute_local_activity(act, what, start_to_close_timeout=TIMEOUT)
        _failed_once[workflow.info().workflow_id] += 1
        if _failed_once[workflow.info().workflow_id] == 1:
            raise RuntimeError("this fails the workflow task, not the workflow")
        return result


@workflow.defn
class StartsChild:
    @workflow.run
    async def run(self) -> str:
        return await workflow.execute_child_workflow(OneActivity.run, args=["act", ["x"], 1, 0, 20])


@pytest.mark.rule("F4")
async def test_a_local_activity_of_a_failed_workflow_task_may_run_again(stage: Callable[..., Any]) -> None:
    s = await stage()
    async with s.worker([FailsItsTaskOnce], [act]):
        handle = await s.start(FailsItsTaskOnce.run, "x")
        assert await handle.result() == "x"
    assert deeds(handle.id) == ["x", "x"]


@pytest.mark.rule("F4")
async def test_an_allow_after_a_denial_in_the_same_attempt_still_uses_the_request_up(
    stage: Callable[..., Any],
) -> None:
    s = await stage(PERMIT_ALL + '@id("no") forbid(principal, action == Action::"act", resource);')
    async with s.worker([OneActivity], [act]):
        await eventually(lambda: s.plugin.gate.journal)
        journal = s.plugin.gate.journal
        write = journal.append

        async def write_while_policies_change(kind: str, body: bytes) -> Any:
            entry = await write(kind, body)
            if kind == "decision":
                s.plugin.gate.put_in_force(PolicyBundle.from_parts(PERMIT_ALL))
            return entry

        journal.append = write_while_policies_change
        handle = await start_one(s, act, "x")
        assert await handle.result() == "x"
    denied, allowed = s.records("decision")
    assert denied.request is None
    assert allowed.request is not None, "the request of an attempt that ran was not used up"


@pytest.mark.rule("X1")
async def test_a_run_whose_start_header_cannot_be_read_starts_no_child(stage: Callable[..., Any]) -> None:
    s = await stage()
    async with s.worker([StartsChild, OneActivity], [act]):
        handle = await s.start_with({START_HEADER: Payload(data=b"[1]")}, StartsChild.run)
        failure = await failure_of(handle)
        history = await handle.fetch_history()
    assert failure.type == "GrantRejected"
    assert not [e for e in history.events if e.HasField("start_child_workflow_execution_initiated_event_attributes")]
