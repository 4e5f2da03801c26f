"""Workers and starts of every kind: each activity is asked for, decided and proven all the same."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from temporalio import activity, workflow
from temporalio.api.workflowservice.v1 import (
    DescribeWorkerDeploymentRequest,
    SetWorkerDeploymentCurrentVersionRequest,
)
from temporalio.client import WorkflowHandle
from temporalio.common import RawValue, RetryPolicy, VersioningBehavior, WorkerDeploymentVersion
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.service import RPCError
from temporalio.worker import Replayer, WorkerDeploymentConfig

from exequatur.statements.models import Receipt
from tests.gate.conftest import PERMIT_ALL, Stage, deeds, failure_of, happened, sandbox, unique
from tests.gate.single import eventually

TIMEOUT = timedelta(seconds=60)
NO_ERASE = PERMIT_ALL + '@id("no") forbid(principal, action == Action::"erase", resource);'


@activity.defn
async def work(step: int) -> int:
    happened(step)
    return step


@activity.defn
async def erase() -> None:
    happened("erased")


@activity.defn
async def beats(attempts: int) -> list[Any]:
    """Leaves details in each attempt and gives those that the last one finds."""
    info = activity.info()
    happened((info.attempt, list(info.heartbeat_details)))
    activity.heartbeat(info.attempt)
    if info.attempt < attempts:
        raise ApplicationError("again")
    return list(info.heartbeat_details)


async def _steps(count: int) -> list[int]:
    """Some work, one step after the other and then at once, and something that is forbidden."""
    done = [await workflow.execute_activity(work, each, start_to_close_timeout=TIMEOUT) for each in range(count)]
    at_once = [workflow.execute_activity(work, count + each, start_to_close_timeout=TIMEOUT) for each in range(2)]
    done += await asyncio.gather(*at_once)
    done.append(await workflow.execute_local_activity(work, 99, start_to_close_timeout=TIMEOUT))
    try:
        await workflow.execute_activity(erase, start_to_close_timeout=TIMEOUT)
    except ActivityError as err:
        done.append(-1 if getattr(err.cause, "type", None) == "AuthorizationDenied" else -2)
    return done


@workflow.defn
class Steps:
    """Does a part, waits, and does the rest."""

    def __init__(self) -> None:
        self._go_on = False

    @workflow.run
    async def run(self, wait: bool) -> list[int]:
        first = await workflow.execute_activity(work, -5, start_to_close_timeout=TIMEOUT)
        await workflow.wait_condition(lambda: self._go_on or not wait)
        return [first, *await _steps(2)]

    @workflow.signal
    def go_on(self) -> None:
        self._go_on = True


EXPECTED = [-5, 0, 1, 2, 3, 99, -1]


@workflow.defn(dynamic=True)
class Anything:
    @workflow.run
    async def run(self, args: Sequence[RawValue]) -> list[Any]:
        given = [workflow.payload_converter().from_payload(each.payload) for each in args]
        return [workflow.info().workflow_type, given, await _steps(1)]


@workflow.defn
class Beats:
    @workflow.run
    async def run(self, attempts: int) -> list[Any]:
        return await workflow.execute_activity(
            beats,
            attempts,
            start_to_close_timeout=TIMEOUT,
            heartbeat_timeout=TIMEOUT,
            retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=20)),
        )


def outcomes(s: Stage) -> list[str]:
    return sorted(receipt.outcome for receipt in s.statements("receipt", Receipt))


async def test_a_dynamic_workflow_is_started_with_a_grant_for_its_type(stage: Callable[..., Any]) -> None:
    s = await stage(
        NO_ERASE + '@id("type") forbid(principal, action == Action::"workflow.start", resource)'
        ' when { context.run.workflow_type == "Forbidden" };'
    )
    async with s.worker([Anything], [work, erase]):
        handle = await s.start("Whatever", {"a": 1}, 2)
        assert await handle.result() == ["Whatever", [{"a": 1}, 2], [0, 1, 2, 99, -1]]
        nothing = await s.start("Whatever")
        assert (await nothing.result())[1] == []
        with pytest.raises(ApplicationError, match="may not start Forbidden"):
            await s.start("Forbidden")
    assert "erased" not in deeds(handle.id)


async def test_a_dynamic_workflow_that_is_given_other_arguments_than_granted_does_nothing(
    stage: Callable[..., Any],
) -> None:
    s = await stage()
    handle = await s.start("Whatever", 1)
    first = (await handle.fetch_history()).events[0].workflow_execution_started_event_attributes
    await handle.terminate()
    async with s.worker([Anything], [work, erase]):
        stolen = await s.start_with(dict(first.header.fields), "Whatever", 2, id=handle.id)
        assert (await failure_of(stolen)).type == "GrantRejected"
    assert deeds(handle.id) == []


async def test_a_workflow_that_starts_eagerly_has_its_grant(stage: Callable[..., Any]) -> None:
    s = await stage(NO_ERASE)
    async with s.worker([Steps], [work, erase]):
        handle = await s.start(Steps.run, False, request_eager_start=True)
        assert handle.__temporal_eagerly_started
        assert await handle.result() == EXPECTED
    assert outcomes(s) == ["completed"] * 6 + ["denied"]


async def test_a_worker_that_keeps_no_workflow_in_memory(stage: Callable[..., Any]) -> None:
    s = await stage(NO_ERASE)
    async with s.worker([Steps], [work, erase], max_cached_workflows=0):
        handle = await s.start(Steps.run, False)
        assert await handle.result() == EXPECTED
    assert sorted(map(str, deeds(handle.id))) == sorted(map(str, EXPECTED[:-1]))
    assert outcomes(s) == ["completed"] * 6 + ["denied"]


async def recorded(handle: WorkflowHandle[Any, Any], kind: str) -> None:
    """Wait until a run's history has such an event."""
    while True:
        history = await handle.fetch_history()
        if any(event.WhichOneof("attributes") == kind for event in history.events):
            return
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("same", [False, True], ids=["another plugin", "the same plugin"])
async def test_another_worker_goes_on_where_one_has_stopped(stage: Callable[..., Any], same: bool) -> None:
    s = await stage(NO_ERASE)
    other = s if same else await stage(NO_ERASE, state=s.state)
    async with s.worker([Steps], [work, erase]):
        handle = await s.start(Steps.run, True)
        await eventually(lambda: deeds(handle.id))
        await recorded(handle, "activity_task_completed_event_attributes")
    # Its sticky queue is gone with it; what it knew of the run is in the history.
    async with other.worker([Steps], [work, erase], queue=s.queue):
        await handle.signal(Steps.go_on)
        assert await handle.result() == EXPECTED
        replayed = Replayer(workflows=[Steps], plugins=[other.plugin], workflow_runner=sandbox())
        await replayed.replay_workflow(await handle.fetch_history())
    assert "erased" not in deeds(handle.id)


async def test_every_attempt_gets_the_details_of_the_one_before(stage: Callable[..., Any]) -> None:
    s = await stage()
    async with s.worker([Beats], [beats]):
        handle = await s.start(Beats.run, 5)
        assert await handle.result() == [4]
    assert deeds(handle.id) == [(1, []), (2, [1]), (3, [2]), (4, [3]), (5, [4])]
    assert outcomes(s) == ["completed"] + ["failed"] * 4


async def make_current(s: Stage, version: WorkerDeploymentVersion) -> None:
    """Route new runs to this version, once the server has seen its worker."""
    service, name = s.plain.workflow_service, version.deployment_name
    while True:
        try:
            described = await service.describe_worker_deployment(
                DescribeWorkerDeploymentRequest(namespace="default", deployment_name=name)
            )
            seen = {each.version for each in described.worker_deployment_info.version_summaries}
            if version.to_canonical_string() in seen:
                break
        except RPCError:
            pass
        await asyncio.sleep(0.05)
    await service.set_worker_deployment_current_version(
        SetWorkerDeploymentCurrentVersionRequest(
            namespace="default",
            deployment_name=name,
            version=version.to_canonical_string(),
            conflict_token=described.conflict_token,
        )
    )


@pytest.mark.parametrize("behavior", [VersioningBehavior.PINNED, VersioningBehavior.AUTO_UPGRADE], ids=lambda b: b.name)
async def test_workers_of_two_versions_of_a_deployment(stage: Callable[..., Any], behavior: VersioningBehavior) -> None:
    s = await stage(NO_ERASE)
    name = unique("deployment")
    versions = [WorkerDeploymentVersion(deployment_name=name, build_id=each) for each in ("1.0", "2.0")]

    def versioned(version: WorkerDeploymentVersion) -> Any:
        config = WorkerDeploymentConfig(
            version=version, use_worker_versioning=True, default_versioning_behavior=behavior
        )
        return s.worker([Steps], [work, erase], deployment_config=config)

    async with versioned(versions[0]), versioned(versions[1]):
        await make_current(s, versions[0])
        handle = await s.start(Steps.run, True)
        await eventually(lambda: deeds(handle.id))
        await make_current(s, versions[1])
        await handle.signal(Steps.go_on)
        assert await handle.result() == EXPECTED
        newer = await s.start(Steps.run, False)
        assert await newer.result() == EXPECTED
    assert "erased" not in deeds(handle.id) + deeds(newer.id)
