"""The gate goes by what the guard says: nothing new while it is in doubt, and an end to what runs when it must."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest
from temporalio import activity
from temporalio.worker import Replayer

from exequatur import Settings
from exequatur.errors import ExequaturError
from exequatur.integrity.guard import Guard
from exequatur.integrity.manifest import Manifest
from exequatur.statements.models import Receipt
from tests.gate.conftest import Stage, deeds, events, failure_of, happened, sandbox
from tests.gate.single import OneActivity, eventually, start_one
from tests.integrity.test_manifest import MEASURED

START = Callable[..., Awaitable[Stage]]
ALTERED = "This worker is not what its manifest says: a file was changed"


@activity.defn
async def act() -> str:
    happened("ran")
    return "done"


@activity.defn
async def waits() -> None:
    happened("began")
    await asyncio.sleep(60)


async def guarded(stage: Stage) -> Guard:
    """A guard that has just found everything as it must be, in a worker that runs already."""
    await eventually(lambda: stage.plugin.gate.unavailable() is None)
    guard = Guard(Manifest("", "worker", "", "A" * 43, MEASURED), Settings(), stage.plugin.gate.integrity_changed)
    guard.arm()
    guard.problem = None
    stage.plugin.gate.guard = guard
    return guard


@pytest.mark.rule("U6")
async def test_nothing_runs_while_it_is_not_known_what_the_worker_is(stage: START) -> None:
    here = await stage(unavailable_wait="100ms", unavailable_retry_delay="100ms")
    async with here.worker([OneActivity], [act]):
        guard = await guarded(here)
        guard.problem = "a file cannot be read"
        handle = await start_one(here, act, attempts=0)
        assert "a file cannot be read" in (here.plugin.gate.unavailable() or "")
        await asyncio.sleep(1)
        assert deeds(handle.id) == []
        guard.problem = None
        assert await handle.result() == "done"


@pytest.mark.rule("U6")
async def test_an_altered_worker_takes_no_tasks_and_renews_no_credential(stage: START) -> None:
    here = await stage()
    gate = here.plugin.gate
    async with here.worker([OneActivity], [act]):
        guard = await guarded(here)
        before = gate.workload.credential.text
        guard.violation = ALTERED
        assert gate.unavailable() == ALTERED
        gate.clock = lambda: time.time() + 2400
        gate.renew_credential()
        assert gate.workload.credential.text == before
        guard.violation = None
        gate.renew_credential()
        assert gate.workload.credential.text != before


@pytest.mark.rule("U6")
async def test_what_runs_ends_when_the_worker_is_altered_and_the_receipt_says_so(stage: START) -> None:
    here = await stage()
    async with here.worker([OneActivity], [waits]):
        guard = await guarded(here)
        handle = await start_one(here, waits)
        await eventually(lambda: deeds(handle.id) == ["began"])
        guard._violated(["a file was changed"])
        failure = await failure_of(handle)
    assert (failure.type, failure.message) == ("AuthorizationRevoked", ALTERED)
    assert [each.outcome for each in here.statements("receipt", Receipt)] == ["revoked"]
    assert [record.kind for record in here.records("integrity")] == ["integrity"]


@pytest.mark.rule("U6")
async def test_what_runs_ends_when_it_has_not_been_known_for_long_what_the_worker_is(stage: START) -> None:
    here = await stage()
    async with here.worker([OneActivity], [waits]):
        guard = await guarded(here)
        handle = await start_one(here, waits)
        await eventually(lambda: deeds(handle.id) == ["began"])
        guard._looked -= 3600
        failure = await failure_of(handle)
    assert failure.type == "AuthorizationUnavailable"
    assert "it has not been known in time" in failure.message


async def test_a_worker_whose_files_cannot_be_read_at_its_start_waits_until_they_can(stage: START) -> None:
    """Uncertainty is no verdict: the worker begins, and takes no task until it is known."""
    here = await stage()
    guard = Guard(
        Manifest("", "worker", "", "A" * 43, MEASURED), Settings(), here.plugin.gate.integrity_changed
    )  # its settings name no keys, which cannot be read
    here.plugin.gate.guard = guard
    async with here.worker([OneActivity], [act]):
        await eventually(lambda: here.records("integrity"), within=60)
        assert "is not a regular file" in (guard.unavailable() or "")
        assert guard.violation is None
        with pytest.raises(ExequaturError):
            _ = here.plugin.gate.workload.credential  # none is asked for


@pytest.mark.rule("U6")
async def test_the_workflows_of_an_altered_worker_sign_nothing(stage: START) -> None:
    here = await stage()
    async with here.worker([OneActivity], [act]):
        guard = await guarded(here)
        guard.violation = ALTERED
        handle = await start_one(here, act)
        await asyncio.sleep(1)
        assert not any(each.HasField("activity_task_scheduled_event_attributes") for each in await events(handle))
        assert here.plugin.gate.ready_to_sign() == ALTERED
        assert here.plugin.gate.ready_to_sign(closing=True) is None
        guard.violation, guard.problem = None, "a file cannot be read"
        assert here.plugin.gate.ready_to_sign() is None  # what it signs is believed until its credential ends
        here.plugin.gate.clock = lambda: time.time() + 7200
        assert "a file cannot be read" in (here.plugin.gate.ready_to_sign() or "")
        await handle.terminate()


async def test_a_process_that_only_replays_is_not_verified(stage: START) -> None:
    here = await stage()
    async with here.worker([OneActivity], [act]):
        handle = await start_one(here, act)
        assert await handle.result() == "done"
    history = await handle.fetch_history()
    other = await stage(state=here.state)
    other.plugin.gate.guard = Guard(Manifest("", "worker", "", "A" * 43, MEASURED), Settings(), lambda told: None)
    await Replayer(workflows=[OneActivity], plugins=[other.plugin], workflow_runner=sandbox()).replay_workflow(history)
