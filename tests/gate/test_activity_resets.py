"""An operator resets, pauses or changes an activity: the attempts that follow are authorized, and a replay is not."""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from temporalio import activity, workflow
from temporalio.api.activity.v1 import ActivityOptions
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    PauseActivityRequest,
    ResetActivityRequest,
    UnpauseActivityRequest,
    UpdateActivityOptionsRequest,
)
from temporalio.client import WorkflowHandle
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError

from exequatur.audit.evidence import DecisionRecord
from exequatur.errors import RepeatedRequestError, ReplayedRequestError
from exequatur.lineage.journal import Journal
from exequatur.lineage.record import read, verify
from exequatur.statements.encoding import compact_json
from tests.gate.conftest import PERMIT_ALL, Stage, deeds, failure_of, happened, unique
from tests.gate.single import eventually

NO_RESET = PERMIT_ALL + (
    '@id("no-reset") @reason("schedule it again") forbid(principal, action == Action::"activity.reset", resource);'
)

_waits: dict[str, bool] = defaultdict(lambda: True)
"""By workflow id, whether the activity still fails."""


@activity.defn
async def works(detail: str) -> Any:
    """Fails until it is told to be done."""
    info = activity.info()
    happened((info.attempt, list(info.heartbeat_details)))
    if detail:
        activity.heartbeat(detail, info.attempt)
    if _waits[info.workflow_id or ""]:
        raise ApplicationError("again")
    return info.attempt


@activity.defn
async def runs_long() -> int:
    """Runs until it is cancelled in its first attempt."""
    info = activity.info()
    happened(info.attempt)
    while _waits[info.workflow_id or ""]:
        activity.heartbeat("so far")
        await asyncio.sleep(0.05)
    return info.attempt


@workflow.defn
class Works:
    """One activity with a long time between its attempts."""

    @workflow.run
    async def run(self, name: str, args: list[Any], first: float, backoff: float) -> Any:
        return await workflow.execute_activity(
            name,
            args=args,
            start_to_close_timeout=timedelta(seconds=30),
            heartbeat_timeout=timedelta(seconds=first),
            retry_policy=RetryPolicy(initial_interval=timedelta(seconds=backoff), backoff_coefficient=1),
        )


def place(handle: WorkflowHandle[Any, Any]) -> dict[str, Any]:
    execution = WorkflowExecution(workflow_id=handle.id)
    return {"namespace": "default", "execution": execution, "id": "1", "identity": "an operator"}


async def reset(s: Stage, handle: WorkflowHandle[Any, Any], **options: Any) -> None:
    await s.plain.workflow_service.reset_activity(ResetActivityRequest(**place(handle), **options))


async def failed(s: Stage, detail: str, attempts: int = 1, *, backoff: float = 15) -> WorkflowHandle[Any, Any]:
    """A run whose activity has failed that many times and waits for its next attempt."""
    handle: WorkflowHandle[Any, Any] = await s.start(Works.run, "works", [detail], 20, backoff)
    await eventually(lambda: len(deeds(handle.id)) >= attempts)
    await waiting(handle, attempts + 1)
    return handle


async def waiting(handle: WorkflowHandle[Any, Any], attempt: int) -> None:
    while True:
        pending = (await handle.describe()).raw_description.pending_activities
        if pending and pending[0].attempt == attempt and pending[0].last_failure.message:
            return
        await asyncio.sleep(0.02)


async def paused(handle: WorkflowHandle[Any, Any]) -> None:
    while True:
        [pending] = (await handle.describe()).raw_description.pending_activities
        if pending.state == PendingActivityState.PENDING_ACTIVITY_STATE_PAUSED:
            return
        await asyncio.sleep(0.02)


@pytest.mark.rule("F4")
async def test_a_reset_activity_runs_again_from_its_first_attempt(stage: Callable[..., Any]) -> None:
    s = await stage()
    async with s.worker([Works], [works]):
        handle = await failed(s, "")
        await reset(s, handle)
        await eventually(lambda: len(deeds(handle.id)) >= 2)
        await waiting(handle, 2)
        # And once more: each use stands by itself.
        _waits[handle.id] = False
        await reset(s, handle)
        assert await handle.result() == 1
    assert deeds(handle.id) == [(1, []), (1, []), (1, [])]
    requests = [record.request for record in s.records("decision")]
    assert len(requests) == len(set(requests)) == 3
    assert {(request or "").partition("@")[0] for request in requests} == {requests[0]}
    scheduled = [DecisionRecord.model_validate_json(record.body).scheduled or 0 for record in s.records("decision")]
    assert scheduled == sorted(set(scheduled))


@pytest.mark.rule("A16")
async def test_a_reset_that_cedar_does_not_allow_does_not_run(stage: Callable[..., Any]) -> None:
    s = await stage(NO_RESET)
    async with s.worker([Works], [works]):
        handle = await failed(s, "")
        _waits[handle.id] = False
        await reset(s, handle)
        failure = await failure_of(handle)
    assert failure.type == "AuthorizationDenied"
    assert "schedule it again" in failure.message
    assert deeds(handle.id) == [(1, [])]


async def test_what_the_policies_are_told_of_a_reset(stage: Callable[..., Any]) -> None:
    workflow_id = unique()
    s = await stage(
        'permit(principal, action in [Action::"workflow.start", Action::"works"], resource);'
        f'permit(principal == Agent::"ops-bot", action == Action::"activity.reset",'
        f' resource == Workflow::"{workflow_id}") when {{ context.run.workflow_id == "{workflow_id}"'
        ' && context.activity.type == "works" && context.activity.id == "1" && context.activity.task_queue != "" };'
    )
    async with s.worker([Works], [works]):
        handle = await s.start(Works.run, "works", [""], 20, 15, id=workflow_id)
        await eventually(lambda: deeds(workflow_id))
        await waiting(handle, 2)
        _waits[workflow_id] = False
        await reset(s, handle)
        assert await handle.result() == 1


@pytest.mark.rule("M3")
async def test_the_attempts_after_a_reset_get_the_details_of_those_before(stage: Callable[..., Any]) -> None:
    s = await stage()
    async with s.worker([Works], [works]):
        handle = await failed(s, "here", attempts=3, backoff=0.1)
        found = len(deeds(handle.id))
        await s.plain.workflow_service.pause_activity(PauseActivityRequest(**place(handle)))
        _waits[handle.id] = False
        await reset(s, handle)
        result = await handle.result()
    assert deeds(handle.id)[-1][1][0] == "here"
    assert deeds(handle.id)[-1][0] == result == 1
    assert found >= 3


@pytest.mark.rule("A16")
@pytest.mark.rule("M3")
async def test_a_worker_that_never_saw_the_activity_sees_the_reset_by_its_details(stage: Callable[..., Any]) -> None:
    s = await stage()
    other = await stage(NO_RESET, state=s.state)
    async with s.worker([Works], (), no_remote_activities=True):
        async with s.worker((), [works]):
            handle = await failed(s, "here")
        await reset(s, handle)
        _waits[handle.id] = False
        async with other.worker((), [works], queue=s.queue):
            failure = await failure_of(handle)
    assert failure.type == "AuthorizationDenied"
    assert len(deeds(handle.id)) == 1


async def test_without_its_details_a_reset_activity_begins_anew(stage: Callable[..., Any]) -> None:
    s = await stage()
    async with s.worker([Works], [works]):
        handle = await failed(s, "here")
        _waits[handle.id] = False
        await reset(s, handle, reset_heartbeat=True)
        assert await handle.result() == 1
    assert deeds(handle.id) == [(1, []), (1, [])]


async def test_a_running_activity_that_is_reset_is_told_and_runs_again(stage: Callable[..., Any]) -> None:
    s = await stage()
    async with s.worker([Works], [runs_long]):
        handle = await s.start(Works.run, "runs_long", [], 1, 0.1)
        await eventually(lambda: deeds(handle.id))
        await reset(s, handle)
        await eventually(lambda: len(deeds(handle.id)) >= 2)
        _waits[handle.id] = False
        await handle.result()
    assert len(deeds(handle.id)) == 2


async def test_a_paused_activity_waits_and_then_runs(stage: Callable[..., Any]) -> None:
    s = await stage()
    async with s.worker([Works], [works]):
        handle = await failed(s, "here", backoff=0.3)
        await s.plain.workflow_service.pause_activity(PauseActivityRequest(**place(handle)))
        before = len(deeds(handle.id))
        _waits[handle.id] = False
        await asyncio.sleep(0.6)
        assert len(deeds(handle.id)) <= before + 1  # one may have been on its way
        await s.plain.workflow_service.unpause_activity(UnpauseActivityRequest(**place(handle)))
        assert await handle.result() == len(deeds(handle.id))
    assert [attempt for attempt, _ in deeds(handle.id)] == list(range(1, len(deeds(handle.id)) + 1))
    assert deeds(handle.id)[-1][1][0] == "here"


async def test_a_running_activity_that_is_paused_is_told_and_runs_again_later(stage: Callable[..., Any]) -> None:
    s = await stage()
    async with s.worker([Works], [runs_long]):
        handle = await s.start(Works.run, "runs_long", [], 1, 0.1)
        await eventually(lambda: deeds(handle.id))
        await s.plain.workflow_service.pause_activity(PauseActivityRequest(**place(handle)))
        await paused(handle)
        _waits[handle.id] = False
        await s.plain.workflow_service.unpause_activity(UnpauseActivityRequest(**place(handle)))
        await handle.result()
    assert len(deeds(handle.id)) == 2


async def options(s: Stage, handle: WorkflowHandle[Any, Any], path: str, **changed: Any) -> None:
    await s.plain.workflow_service.update_activity_options(
        UpdateActivityOptionsRequest(
            **place(handle), update_mask=FieldMask(paths=[path]), activity_options=ActivityOptions(**changed)
        )
    )


async def test_an_activity_whose_timeouts_are_changed_runs_on(stage: Callable[..., Any]) -> None:
    s = await stage()
    async with s.worker([Works], [works]):
        handle = await failed(s, "here", backoff=0.3)
        await options(s, handle, "start_to_close_timeout", start_to_close_timeout=Duration(seconds=11))
        _waits[handle.id] = False
        await handle.result()
    assert deeds(handle.id)[-1][1][0] == "here"


@pytest.mark.rule("R10")
async def test_an_activity_that_is_moved_to_another_task_queue_does_not_run_there(stage: Callable[..., Any]) -> None:
    s = await stage()
    elsewhere = unique("queue")
    async with s.worker([Works], [works]):
        handle = await failed(s, "", backoff=3)
        await options(s, handle, "task_queue.name", task_queue=TaskQueue(name=elsewhere))
    async with s.worker([Works], ()), s.worker((), [works], queue=elsewhere):
        failure = await failure_of(handle)
    assert failure.type == "GrantRejected"
    assert "R10" in failure.message
    assert deeds(handle.id) == [(1, [])]


# What the journal holds a request to.


def use(
    journal: Journal,
    scheduled: float | None,
    *,
    activity_id: str = "1",
    first: float = 100.0,
    reset: bool = False,
    **changes: Any,
) -> None:
    said = {"activity_id": activity_id, "first_scheduled": first, "scheduled": scheduled}
    named = {"request": "r" * 43, "run": "run", "attempt": 1} | changes
    asyncio.run(journal.append_decision(compact_json(said), **named, reset=reset))


@pytest.mark.rule("F4")
def test_a_request_is_used_again_only_for_a_reset_that_was_scheduled_later(tmp_path: Path) -> None:
    with Journal.open(tmp_path) as journal:
        use(journal, 100.0)
        for scheduled in (100.0, 99.0, None):
            for allowed in (False, True):
                with pytest.raises(ReplayedRequestError) as raised:
                    use(journal, scheduled, reset=allowed)
                assert not isinstance(raised.value, RepeatedRequestError)
        with pytest.raises(RepeatedRequestError):
            use(journal, 100.5)
        use(journal, 100.5, reset=True)
        # The same again, or one between, is a replay.
        for scheduled in (100.0, 100.25, 100.5):
            with pytest.raises(ReplayedRequestError):
                use(journal, scheduled, reset=True)
        use(journal, 101.0, reset=True)
        use(journal, 100.5, attempt=2)
        path = journal.path
    assert verify(path) == 4
    assert len({record.request for record in read(path)}) == 3


@pytest.mark.rule("F4")
@pytest.mark.parametrize("changes", [{"activity_id": "2"}, {"first": 150.0}], ids=str)
def test_a_request_is_not_used_again_for_another_activity_of_its_run(tmp_path: Path, changes: dict[str, Any]) -> None:
    with Journal.open(tmp_path) as journal:
        use(journal, 100.0)
        for allowed in (False, True):
            with pytest.raises(ReplayedRequestError) as raised:
                use(journal, 200.0, reset=allowed, **changes)
            assert not isinstance(raised.value, RepeatedRequestError)


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"\xff", b'{"activity_id":1,"first_scheduled":[],"scheduled":1}'])
def test_a_body_that_does_not_say_what_it_is_about_is_never_repeated(tmp_path: Path, body: bytes) -> None:
    named: dict[str, Any] = {"request": "r" * 43, "run": "run", "attempt": 1}
    with Journal.open(tmp_path) as journal:
        asyncio.run(journal.append_decision(body, **named))
        with pytest.raises(ReplayedRequestError) as raised:
            asyncio.run(journal.append_decision(body, **named, reset=True))
    assert not isinstance(raised.value, RepeatedRequestError)


def test_a_use_that_does_not_say_when_it_was_scheduled_is_never_repeated(tmp_path: Path) -> None:
    with Journal.open(tmp_path) as journal:
        use(journal, None)
        with pytest.raises(ReplayedRequestError) as raised:
            use(journal, 100.0, reset=True)
    assert not isinstance(raised.value, RepeatedRequestError)


def test_another_request_that_begins_alike_is_not_a_use_of_this_one(tmp_path: Path) -> None:
    with Journal.open(tmp_path) as journal:
        use(journal, 100.0, request="abc")
        use(journal, 500.0, request="abcd")
        use(journal, 200.0, request="abc", reset=True)


def test_what_was_used_stays_used_after_a_restart(tmp_path: Path) -> None:
    with Journal.open(tmp_path) as journal:
        use(journal, 100.0)
        use(journal, 200.0, reset=True)
    with Journal.open(tmp_path) as journal:
        with pytest.raises(ReplayedRequestError):
            use(journal, 200.0, reset=True)
        use(journal, 300.0, reset=True)
