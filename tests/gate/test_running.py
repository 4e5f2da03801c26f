"""An activity runs only as long as it is authorized, whatever its kind and whatever its body does."""

import asyncio
import multiprocessing
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity, workflow
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import PauseActivityRequest, UnpauseActivityRequest
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.exceptions import TimeoutError as TemporalTimeoutError
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    Interceptor,
    SharedStateManager,
)

from exequatur import action
from exequatur.errors import ConfigurationError, ExequaturError
from exequatur.gate.wire import PREFIX
from exequatur.revocation.revocations import OwnRevocations
from exequatur.revocation.store import FolderStore
from exequatur.statements.jws import parse
from exequatur.statements.models import Receipt
from tests.gate.conftest import PERMIT_ALL, Stage, deeds, failure_of, happened
from tests.gate.single import OneActivity, eventually, grant_of, start_one

_released: dict[str, threading.Event] = defaultdict(threading.Event)
"""By workflow id: a body that would go on for ever may now return."""


def released() -> threading.Event:
    return _released[activity.info().workflow_id or ""]


# Bodies of every kind. Each says that it began, and how it ended.


@activity.defn
async def beats() -> None:
    happened("began")
    try:
        while True:
            activity.heartbeat()
            await asyncio.sleep(0.02)
    except BaseException as err:
        happened(type(err).__name__)
        raise


@activity.defn
async def sleeps() -> None:
    happened("began")
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        happened("cancelled")
        raise


@activity.defn
async def stubborn() -> str:
    happened("began")
    while not released().is_set():
        try:
            await asyncio.sleep(0.02)
        except asyncio.CancelledError:
            happened("went on")
    happened("finished")
    return "late"


@activity.defn
async def stubborn_and_beating() -> str:
    happened("began")
    refused = False
    while not released().is_set():
        try:
            await asyncio.sleep(0.02)
            activity.heartbeat("I go on")
        except asyncio.CancelledError:
            pass
        except ApplicationError as err:
            if not refused:
                happened(err.type)
            refused = True
    happened("finished")
    return "late"


@activity.defn
def in_thread() -> None:
    happened("began")
    try:
        while True:
            time.sleep(0.01)
    except BaseException as err:
        happened(type(err).__name__)
        raise


@activity.defn
def beats_in_thread() -> None:
    happened("began")
    try:
        while True:
            activity.heartbeat()
            time.sleep(0.02)
    except BaseException as err:
        happened(type(err).__name__)
        raise


@activity.defn
def shielded() -> None:
    try:
        with activity.shield_thread_cancel_exception():
            happened("began")
            released().wait(30)
            happened("tidied up")
        while True:
            time.sleep(0.01)
    except BaseException as err:
        happened(type(err).__name__)
        raise


@activity.defn(no_thread_cancel_exception=True)
def looks_itself() -> str:
    happened("began")
    while not activity.is_cancelled():
        time.sleep(0.01)
    happened("saw it")
    return "late"


@activity.defn
def in_process(path: str) -> str:
    file = Path(path)
    file.write_text("began")
    while not activity.is_cancelled():
        activity.heartbeat()
        time.sleep(0.05)
    file.write_text("saw it")
    return "late"


@activity.defn
def beats_in_process(stop: str) -> int:
    count = 0
    while not Path(stop).exists():
        count += 1
        activity.heartbeat(count)
        time.sleep(0.05)
    return count


@activity.defn
async def quick() -> str:
    happened("ran")
    return "done"


@activity.defn
async def takes_list(items: list[int]) -> int:
    happened(items)
    return sum(items)


@activity.defn
def takes_list_in_thread(items: list[int]) -> int:
    happened(items)
    return sum(items)


@activity.defn
def writes_list(items: list[int], path: str) -> None:
    Path(path).write_text(str(items))


@activity.defn
@action(resource=lambda account, path: account.decode(), resource_type="Account")
def writes_account(account: bytes, path: str) -> None:
    Path(path).write_bytes(account)


BODIES = [beats, sleeps, stubborn, stubborn_and_beating, in_thread, beats_in_thread, shielded, looks_itself, quick]


def outcomes(stage: Stage) -> list[str]:
    return [receipt.outcome for receipt in stage.statements("receipt", Receipt)]


# Revocation.


@pytest.mark.parametrize("by", ["grant", "principal", "workflow", "activity", "everything"])
async def test_a_revocation_stops_a_heartbeating_activity(stage: Callable[..., Any], by: str) -> None:
    s = await stage()
    async with s.worker([OneActivity], BODIES):
        handle = await start_one(s, beats, attempts=5, heartbeat=10)
        await eventually(lambda: deeds(handle.id))
        named = {
            "grant": (await grant_of(handle)).jti,
            "principal": 'Agent::"ops-bot"',
            "workflow": handle.id,
            "activity": "beats",
            "everything": True,
        }
        s.plugin.revoke(**{by: named[by]}, reason="the key was lost")
        failure = await failure_of(handle)
        await eventually(lambda: len(deeds(handle.id)) == 2)
    assert failure.type == "AuthorizationRevoked"
    assert "the key was lost" in failure.message
    assert failure.non_retryable
    assert deeds(handle.id)[0] == "began"
    assert deeds(handle.id)[1] in ("CancelledError", "AuthorizationRevoked")
    assert outcomes(s) == ["revoked"]


async def test_a_revocation_that_names_others_stops_nobody(stage: Callable[..., Any]) -> None:
    s = await stage()
    async with s.worker([OneActivity], BODIES):
        handle = await start_one(s, stubborn)
        await eventually(lambda: deeds(handle.id))
        s.plugin.revoke(grant="another", reason="lost")
        s.plugin.revoke(principal='Agent::"another"', reason="lost")
        s.plugin.revoke(workflow="another", reason="lost")
        s.plugin.revoke(activity="another", reason="lost")
        s.plugin.revoke(workflow=handle.id, activity="another", reason="what is given together matches together")
        _released[handle.id].set()
        assert await handle.result() == "late"
    [receipt] = s.statements("receipt", Receipt)
    assert receipt.outcome == "completed"
    assert receipt.rechecks >= 1


async def test_the_record_of_a_revocation_is_signed_and_travels_in_the_failure(stage: Callable[..., Any]) -> None:
    s = await stage()
    async with s.worker([OneActivity], BODIES):
        handle = await start_one(s, sleeps)
        await eventually(lambda: deeds(handle.id))
        s.plugin.revoke(workflow=handle.id, reason="stop")
        failure = await failure_of(handle)
    [record] = s.records("receipt")
    assert failure.details[0]["receipt"] == record.body.decode()
    assert failure.details[0]["principal"] == 'Agent::"ops-bot"'
    [receipt] = s.statements("receipt", Receipt)
    assert (receipt.outcome, receipt.attempt, receipt.started is not None) == ("revoked", 1, True)
    assert receipt.revocations.version == 1


async def test_an_activity_that_never_heartbeats_is_cancelled(stage: Callable[..., Any]) -> None:
    s = await stage()
    async with s.worker([OneActivity], BODIES):
        handle = await start_one(s, sleeps, attempts=5)
        await eventually(lambda: deeds(handle.id))
        s.plugin.revoke(workflow=handle.id, reason="stop")
        failure = await failure_of(handle)
        await eventually(lambda: deeds(handle.id) == ["began", "cancelled"])
    assert failure.type == "AuthorizationRevoked"


@pytest.mark.rule("B4")
@pytest.mark.rule("F7")
async def test_an_attempt_whose_body_swallows_the_cancellation_ends_all_the_same(stage: Callable[..., Any]) -> None:
    s = await stage()
    async with s.worker([OneActivity], BODIES):
        handle = await start_one(s, stubborn, attempts=5, seconds=20)
        await eventually(lambda: deeds(handle.id))
        s.plugin.revoke(workflow=handle.id, reason="stop")
        failure = await failure_of(handle)
        assert "finished" not in deeds(handle.id)
        _released[handle.id].set()
        await eventually(lambda: deeds(handle.id)[-1] == "finished")
    assert failure.type == "AuthorizationRevoked"
    assert deeds(handle.id) == ["began", "went on", "finished"]  # no second attempt, and "late" came too late
    assert outcomes(s) == ["revoked"]


async def test_a_body_that_goes_on_after_its_end_cannot_heartbeat(stage: Callable[..., Any]) -> None:
    s = await stage()
    async with s.worker([OneActivity], BODIES):
        handle = await start_one(s, stubborn_and_beating, heartbeat=10)
        await eventually(lambda: deeds(handle.id))
        s.plugin.revoke(workflow=handle.id, reason="stop")
        await failure_of(handle)
        await eventually(lambda: deeds(handle.id) == ["began", "AuthorizationRevoked"])
        _released[handle.id].set()
        await eventually(lambda: deeds(handle.id)[-1] == "finished")


@pytest.mark.parametrize("body", [in_thread, beats_in_thread], ids=lambda body: body.__name__)
async def test_a_thread_gets_an_exception_raised_in_it(stage: Callable[..., Any], body: Any) -> None:
    s = await stage()
    async with s.worker([OneActivity], BODIES):
        handle = await start_one(s, body, attempts=5, heartbeat=10)
        await eventually(lambda: deeds(handle.id))
        s.plugin.revoke(workflow=handle.id, reason="stop")
        failure = await failure_of(handle)
        await eventually(lambda: len(deeds(handle.id)) == 2)
    assert failure.type == "AuthorizationRevoked"
    assert deeds(handle.id)[1] in ("CancelledError", "AuthorizationRevoked")
    assert outcomes(s) == ["revoked"]


async def test_a_shielded_thread_finishes_its_shielded_part_while_its_attempt_has_ended(
    stage: Callable[..., Any],
) -> None:
    s = await stage()
    async with s.worker([OneActivity], BODIES):
        handle = await start_one(s, shielded)
        await eventually(lambda: deeds(handle.id))
        s.plugin.revoke(workflow=handle.id, reason="stop")
        failure = await failure_of(handle)
        assert deeds(handle.id) == ["began"]
        _released[handle.id].set()
        await eventually(lambda: deeds(handle.id) == ["began", "tidied up", "CancelledError"])
    assert failure.type == "AuthorizationRevoked"


async def test_a_thread_that_takes_no_exception_sees_that_it_is_cancelled(stage: Callable[..., Any]) -> None:
    s = await stage()
    async with s.worker([OneActivity], BODIES):
        handle = await start_one(s, looks_itself, attempts=5)
        await eventually(lambda: deeds(handle.id))
        s.plugin.revoke(workflow=handle.id, reason="stop")
        failure = await failure_of(handle)
        await eventually(lambda: deeds(handle.id) == ["began", "saw it"])
    assert failure.type == "AuthorizationRevoked"
    assert outcomes(s) == ["revoked"]


@pytest.fixture(scope="module")
def processes() -> Any:
    """Options of a worker whose activities run in other processes."""
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(2, mp_context=context) as pool:
        yield {
            "activity_executor": pool,
            "shared_state_manager": SharedStateManager.create_from_multiprocessing(manager),
        }


# B1: the body is not entered any more.


class Between(Interceptor):
    """Does something between the gate and the body, in another interceptor of the user's."""

    def __init__(self, do: Callable[[ExecuteActivityInput], None]) -> None:
        self.do = do

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        do = self.do

        class Inbound(ActivityInboundInterceptor):
            async def execute_activity(self, input: ExecuteActivityInput) -> Any:
                do(input)
                return await self.next.execute_activity(input)

        return Inbound(next)


@pytest.mark.rule("B1")
async def test_a_revocation_between_the_gate_and_the_first_line_keeps_the_body_from_beginning(
    stage: Callable[..., Any],
) -> None:
    s = await stage()
    revoke = Between(lambda _: s.plugin.revoke(activity="quick", reason="just in time") and None)
    async with s.worker([OneActivity], BODIES, interceptors=[revoke]):
        handle = await start_one(s, quick, attempts=3)
        failure = await failure_of(handle)
    assert failure.type == "AuthorizationRevoked"
    assert "just in time" in failure.message
    assert deeds(handle.id) == []


@pytest.mark.rule("B1")
async def test_a_process_activity_that_is_revoked_while_it_waits_in_a_full_pool_never_begins(
    stage: Callable[..., Any], processes: dict[str, Any], tmp_path: Path
) -> None:
    s = await stage()
    stop, file = tmp_path / "stop", tmp_path / "file"
    pool = processes["activity_executor"]
    async with s.worker([OneActivity], [in_process, beats_in_process], **processes):
        occupying = [await start_one(s, beats_in_process, str(stop)) for _ in range(2)]
        await eventually(lambda: len(pool._pending_work_items) == 2)
        waiting = await start_one(s, in_process, str(file), attempts=3)
        # The pool takes one more than it has processes for, and what it has taken cannot be cancelled.
        await eventually(lambda: [item.future.running() for item in pool._pending_work_items.values()] == [True] * 3)
        s.plugin.revoke(workflow=waiting.id, reason="stop")
        failure = await failure_of(waiting)  # at once, while the pool is still full
        stop.touch()
        await asyncio.gather(*(each.result() for each in occupying))
        await eventually(lambda: not pool._pending_work_items)
    assert failure.type == "AuthorizationRevoked"
    assert not file.exists()


@pytest.mark.rule("B1")
async def test_a_process_activity_does_not_begin_when_the_policy_changed_right_after_its_decision(
    stage: Callable[..., Any], processes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s = await stage()
    stricter = await stage(PERMIT_ALL + '@id("no") forbid(principal, action == Action::"in_process", resource);')
    gate, file = s.plugin.gate, tmp_path / "file"
    enter = gate.enter

    def entered_after_the_change(running: Any) -> None:
        monkeypatch.undo()
        gate.put_in_force(stricter.plugin.gate.policy.bundle)
        enter(running)

    monkeypatch.setattr(gate, "enter", entered_after_the_change)
    async with s.worker([OneActivity], [in_process], **processes):
        handle = await start_one(s, in_process, str(file), attempts=3)
        failure = await failure_of(handle)
        await eventually(lambda: not processes["activity_executor"]._pending_work_items)
    assert failure.type == "AuthorizationRevoked"
    assert not file.exists()


@pytest.mark.rule("B1")
async def test_a_thread_activity_that_waits_in_a_full_pool_does_not_begin_after_its_revocation(
    stage: Callable[..., Any],
) -> None:
    s = await stage()
    loop = asyncio.get_running_loop()

    @activity.defn
    def occupies() -> str:
        happened("began")
        released().wait(30)
        # The event loop has no chance to notice before this thread takes the next activity from the pool.
        stalled = threading.Event()
        loop.call_soon_threadsafe(lambda: (stalled.set(), time.sleep(0.3)))
        stalled.wait()
        s.plugin.revoke(activity="waits", reason="just in time")
        return "done"

    @activity.defn
    def waits() -> None:
        happened("began")

    with ThreadPoolExecutor(1) as pool:
        async with s.worker([OneActivity], [occupies, waits], activity_executor=pool):
            first = await start_one(s, occupies)
            await eventually(lambda: deeds(first.id))
            second = await start_one(s, waits, attempts=3)
            # Two decisions: the second was allowed, and waits for the thread.
            await eventually(lambda: len(s.records("decision")) == 2 and pool._work_queue.qsize() == 1)
            _released[first.id].set()
            assert await first.result() == "done"
            failure = await failure_of(second)
    assert failure.type == "AuthorizationRevoked"
    assert deeds(second.id) == []


async def test_a_thread_activity_that_is_revoked_while_it_waits_in_a_full_pool_never_begins(
    stage: Callable[..., Any],
) -> None:
    s = await stage()

    @activity.defn
    def occupies() -> None:
        happened("began")
        released().wait(30)

    @activity.defn
    def waits() -> None:
        happened("began")

    with ThreadPoolExecutor(1) as pool:
        async with s.worker([OneActivity], [occupies, waits], activity_executor=pool):
            first = await start_one(s, occupies)
            await eventually(lambda: deeds(first.id))
            second = await start_one(s, waits, attempts=3)
            await eventually(lambda: len(s.records("decision")) == 2 and pool._work_queue.qsize() == 1)
            s.plugin.revoke(workflow=second.id, reason="stop")
            failure = await failure_of(second)  # at once, while the pool is still full
            _released[first.id].set()
            await first.result()
    assert failure.type == "AuthorizationRevoked"
    assert deeds(second.id) == []


@pytest.mark.rule("A5")
@pytest.mark.parametrize("by", ["grant", "principal", "workflow", "activity", "everything"])
async def test_what_was_revoked_before_it_started_does_not_start(stage: Callable[..., Any], by: str) -> None:
    s = await stage()
    handle = await start_one(s, quick, attempts=3)
    named = {
        "grant": (await grant_of(handle)).jti,
        "principal": 'Agent::"ops-bot"',
        "workflow": handle.id,
        "activity": "quick",
        "everything": True,
    }
    s.plugin.revoke(**{by: named[by]}, reason="the key was lost")
    async with s.worker([OneActivity], BODIES):
        failure = await failure_of(handle)
    assert failure.type == "GrantRejected"
    assert "the key was lost" in failure.message
    assert deeds(handle.id) == []


async def test_the_kill_switch_stops_all_that_runs_and_lets_nothing_start(stage: Callable[..., Any]) -> None:
    s = await stage()
    async with s.worker([OneActivity], BODIES):
        running = [await start_one(s, body, heartbeat=10) for body in (beats, sleeps, in_thread, looks_itself)]
        await eventually(lambda: all(deeds(handle.id) for handle in running))
        s.plugin.revoke(everything=True, reason="fire")
        failures = [await failure_of(handle) for handle in running]
        with pytest.raises(Exception, match="fire"):
            await start_one(s, quick)
        await eventually(lambda: all(len(deeds(handle.id)) == 2 for handle in running))
    assert {failure.type for failure in failures} == {"AuthorizationRevoked"}


# B2: the arguments are those that were judged.


def _change(input: ExecuteActivityInput) -> None:
    input.args[0].append(1_000_000)


@pytest.mark.rule("B2")
@pytest.mark.parametrize("body", [takes_list, takes_list_in_thread], ids=lambda body: body.__name__)
async def test_a_body_does_not_begin_with_other_arguments_than_were_judged(
    stage: Callable[..., Any], body: Any
) -> None:
    s = await stage()
    async with s.worker([OneActivity], [body], interceptors=[Between(_change)]):
        handle = await start_one(s, body, [1, 2])
        failure = await failure_of(handle)
    assert failure.type == "GrantRejected"
    assert "arguments were changed" in failure.message
    assert parse(failure.details[0]["receipt"], Receipt).claims.outcome == "rejected"
    assert deeds(handle.id) == []


@pytest.mark.rule("B2")
async def test_a_body_in_another_process_does_not_begin_on_a_resource_that_nobody_can_compare_there(
    stage: Callable[..., Any], processes: dict[str, Any], tmp_path: Path
) -> None:
    s = await stage()
    async with s.worker([OneActivity], [writes_account], **processes):
        handle = await start_one(s, writes_account, b"mine", str(tmp_path / "account"))
        failure = await failure_of(handle)
    assert failure.type == "GrantRejected"
    assert "has no form in Cedar" in failure.message
    assert not (tmp_path / "account").exists()


@pytest.mark.rule("B2")
async def test_a_body_in_another_process_does_not_begin_with_other_arguments_than_were_judged(
    stage: Callable[..., Any], processes: dict[str, Any], tmp_path: Path
) -> None:
    s = await stage()
    file = tmp_path / "list"
    async with s.worker([OneActivity], [writes_list], **processes):
        handle = await start_one(s, writes_list, [1, 2], str(file))
        await handle.result()
        assert file.read_text() == "[1, 2]"
    file.unlink()
    async with s.worker([OneActivity], [writes_list], interceptors=[Between(_change)], **processes):
        handle = await start_one(s, writes_list, [1, 2], str(file))
        with pytest.raises(WorkflowFailureError) as raised:
            await handle.result()
    # Its cause is the traceback of the other process, as for every exception from there.
    assert raised.value.cause.cause.type == "GrantRejected"
    assert raised.value.cause.cause.non_retryable
    assert not file.exists()


# B3: looked at again.


@pytest.mark.rule("B3")
@pytest.mark.parametrize("body", [beats, sleeps, in_thread], ids=lambda body: body.__name__)
async def test_an_activity_ends_with_its_grant(stage: Callable[..., Any], body: Any) -> None:
    s = await stage(grant_ttl="10m")
    async with s.worker([OneActivity], BODIES):
        handle = await start_one(s, body, attempts=5, heartbeat=10)
        await eventually(lambda: deeds(handle.id))
        s.plugin.gate.clock = lambda: time.time() + 601
        failure = await failure_of(handle)
        await eventually(lambda: len(deeds(handle.id)) == 2)
    assert failure.type == "AuthorizationRevoked"
    assert "grant ended" in failure.message
    assert outcomes(s) == ["revoked"]


WHILE_EARLY = """
@id("start") permit(principal, action == Action::"workflow.start", resource);
@id("early") @ttl("1s") permit(principal, action, resource) when {{ context.now < datetime("{until}") }};
"""


@pytest.mark.rule("B3")
@pytest.mark.parametrize("body", [beats, sleeps], ids=lambda body: body.__name__)
async def test_an_allow_with_a_ttl_is_judged_again_when_it_has_passed(stage: Callable[..., Any], body: Any) -> None:
    until = time.time() + 600
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(until))
    s = await stage(WHILE_EARLY.format(until=moment))
    async with s.worker([OneActivity], BODIES):
        handle = await start_one(s, body, attempts=5, heartbeat=10)
        await eventually(lambda: deeds(handle.id))
        s.plugin.gate.clock = lambda: time.time() + 601
        failure = await failure_of(handle)
    assert failure.type == "AuthorizationRevoked"
    assert f"may not run {body.__name__}" in failure.message


@pytest.mark.rule("B3")
@pytest.mark.parametrize("body", [beats, sleeps, looks_itself], ids=lambda body: body.__name__)
async def test_a_policy_that_is_edited_while_it_runs_ends_it(stage: Callable[..., Any], body: Any) -> None:
    s = await stage()
    async with s.worker([OneActivity], BODIES):
        handle = await start_one(s, body, attempts=5, heartbeat=10)
        await eventually(lambda: deeds(handle.id))
        s.write(
            PERMIT_ALL
            + f'@id("freeze") @reason("it is frozen") forbid(principal, action == Action::"{body.__name__}", resource);'
        )
        failure = await failure_of(handle)
    assert failure.type == "AuthorizationRevoked"
    assert "freeze: it is frozen" in failure.message
    assert failure.details[0]["policies"] == [{"id": "freeze", "reason": "it is frozen"}]


async def test_a_policy_that_is_edited_and_still_permits_lets_it_go_on(stage: Callable[..., Any]) -> None:
    s = await stage()
    async with s.worker([OneActivity], BODIES):
        handle = await start_one(s, stubborn)
        await eventually(lambda: deeds(handle.id))
        before = s.plugin.gate.policy.bundle.digest
        s.write(PERMIT_ALL + '@id("other") forbid(principal, action == Action::"other", resource);')
        await eventually(lambda: s.plugin.gate.policy.bundle.digest != before)
        await asyncio.sleep(0.05)
        _released[handle.id].set()
        assert await handle.result() == "late"
    assert deeds(handle.id) == ["began", "finished"]
    [receipt] = s.statements("receipt", Receipt)
    assert receipt.rechecks >= 1
    assert receipt.bundle == s.plugin.gate.policy.bundle.digest
    assert receipt.bundle_sequence == 2


# How often.


async def _rechecks(stage: Callable[..., Any], policy: str, *, step: float, **settings: Any) -> int:
    """Of an activity that heartbeats 20 times, between which the clock goes on by ``step`` seconds."""
    s: Stage = await stage(policy, watchdog_interval="5s", **settings)
    offset = 0.0
    s.plugin.gate.clock = lambda: time.time() + offset

    @activity.defn
    async def counts() -> None:
        nonlocal offset
        for count in range(20):
            offset += step
            activity.heartbeat(count)

    async with s.worker([OneActivity], [counts]):
        await (await start_one(s, counts, heartbeat=10)).result()
    [receipt] = s.statements("receipt", Receipt)
    return int(receipt.rechecks)


async def test_heartbeats_judge_nothing_again_while_nothing_has_changed(stage: Callable[..., Any]) -> None:
    assert await _rechecks(stage, PERMIT_ALL, step=2, recheck_interval="0s") == 0


async def test_heartbeats_judge_again_whenever_a_ttl_has_passed(stage: Callable[..., Any]) -> None:
    policy = '@id("brief") @ttl("1s") permit(principal, action, resource);'
    assert await _rechecks(stage, policy, step=2, recheck_interval="0s") == 20


async def test_heartbeats_judge_again_no_more_often_than_configured(stage: Callable[..., Any]) -> None:
    policy = '@id("brief") @ttl("1s") permit(principal, action, resource);'
    assert await _rechecks(stage, policy, step=2, recheck_interval="1h") == 0


async def test_a_rate_limit_does_not_delay_a_change(stage: Callable[..., Any]) -> None:
    s = await stage(recheck_interval="1h", watchdog_interval="5s")

    @activity.defn
    async def revokes_itself() -> None:
        happened("began")
        s.plugin.revoke(activity="revokes_itself", reason="stop")
        activity.heartbeat()
        happened("went on")

    async with s.worker([OneActivity], [revokes_itself]):
        handle = await start_one(s, revokes_itself, heartbeat=10)
        failure = await failure_of(handle)
    assert failure.type == "AuthorizationRevoked"
    assert deeds(handle.id) == ["began"]


# Revocations are durable.


async def test_a_revocation_is_on_disk_when_it_is_acknowledged(stage: Callable[..., Any]) -> None:
    s = await stage()
    assert s.plugin.revoke(workflow="w1", reason="one") == 1
    assert (s.state / "revocations").read_text().count("\n") == 1
    assert s.plugin.revoke(principal='Agent::"x"', activity="refund", reason="two") == 2
    seen = OwnRevocations(FolderStore(s.state))
    assert seen.version == 2
    assert seen.find({"workflow": "w1"}).reason == "one"
    assert seen.find({"principal": 'Agent::"x"', "activity": "refund"}).reason == "two"
    assert seen.find({"principal": 'Agent::"x"', "activity": "export"}) is None


REVOKE = f"""
import os, sys
from exequatur import AuthorizationPlugin, action
plugin = AuthorizationPlugin.embedded(sys.argv[1], state_dir=sys.argv[2])
plugin.revoke(workflow=sys.argv[3], reason="from afar")
os.{"_exit"}(9)  # without any tidying up
"""


async def test_every_process_of_the_state_folder_follows_a_revocation(stage: Callable[..., Any]) -> None:
    s = await stage()
    async with s.worker([OneActivity], BODIES):
        handle = await start_one(s, sleeps)
        await eventually(lambda: deeds(handle.id))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", REVOKE, str(s.policies), str(s.state), handle.id, stderr=subprocess.PIPE
        )
        _, errors = await process.communicate()
        assert process.returncode == 9, errors.decode()
        failure = await asyncio.wait_for(failure_of(handle), 30)
    assert failure.type == "AuthorizationRevoked"
    assert "from afar" in failure.message


async def test_what_a_crash_left_half_written_was_never_acknowledged_and_harms_nothing(
    stage: Callable[..., Any],
) -> None:
    s = await stage()
    s.plugin.revoke(workflow="w1", reason="one")
    with (s.state / "revocations").open("ab") as file:
        file.write(b'{"at": 1.0, "reason": "tw')
    s.plugin.gate.revocations.refresh()
    assert s.plugin.gate.revocations.problem is None
    assert s.plugin.revoke(workflow="w2", reason="two") == 2
    assert OwnRevocations(FolderStore(s.state)).version == 2


async def test_readers_that_overtake_each_other_never_forget_a_revocation(stage: Callable[..., Any]) -> None:
    s = await stage()
    feed, done = s.plugin.gate.revocations, threading.Event()
    versions, problems = [], []

    def reads() -> None:
        while not done.is_set():
            feed.refresh()
            versions.append(feed.version)
            problems.append(feed.problem)

    readers = [threading.Thread(target=reads) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for number in range(60):
            s.plugin.revoke(workflow=f"w{number}", reason="stop")
            assert feed.find({"workflow": f"w{number}"})
            assert feed.version == number + 1
    finally:
        done.set()
        for reader in readers:
            reader.join()
    assert set(problems) == {None}


async def test_a_revocation_that_cannot_be_written_is_not_acknowledged(stage: Callable[..., Any]) -> None:
    s = await stage()
    (s.state / "revocations").mkdir()
    with pytest.raises(ExequaturError, match=r"Nothing was revoked"):
        s.plugin.revoke(workflow="w1", reason="stop")
    assert s.plugin.gate.revocations.find({"workflow": "w1"}) is None


async def test_a_revocation_of_something_that_is_no_principal_is_not_acknowledged(stage: Callable[..., Any]) -> None:
    s = await stage()
    with pytest.raises(ConfigurationError, match='Role::"ops"'):
        s.plugin.revoke(principal="ops-bot", reason="it would match nothing")
    assert s.plugin.revoke(principal='Agent::"ops-bot"', reason="stop") == 1


@pytest.mark.parametrize("named", [{}, {"everything": True, "workflow": "w1"}], ids=["nothing", "too much"])
async def test_a_revocation_names_something_or_everything(stage: Callable[..., Any], named: dict[str, Any]) -> None:
    s = await stage()
    with pytest.raises(ConfigurationError, match=r"Nothing was revoked: .*name a grant, a principal, a workflow"):
        s.plugin.revoke(**named, reason="stop")
    assert not (s.state / "revocations").exists()


# What is not the gate's business stays as it was. Each scenario is played with and without the plugin.


@activity.defn
async def returns_when_cancelled() -> str:
    happened("began")
    try:
        while True:
            activity.heartbeat()
            await asyncio.sleep(0.02)
    except asyncio.CancelledError:
        await asyncio.sleep(0.05)  # tidies up
        happened(activity.cancellation_details().cancel_requested)
        return "partly done"


@activity.defn
def thread_returns_when_cancelled() -> str:
    happened("began")
    try:
        while True:
            activity.heartbeat()
            time.sleep(0.02)
    except BaseException:
        happened(activity.cancellation_details().cancel_requested)
        return "partly done"


@activity.defn
async def tidies_up_when_paused() -> str:
    if activity.info().attempt > 1:
        return "second attempt"
    happened("began")
    try:
        while True:
            activity.heartbeat()
            await asyncio.sleep(0.02)
    except asyncio.CancelledError:
        happened(activity.cancellation_details().paused)
        raise


@workflow.defn
class CancelsItsActivity:
    def __init__(self) -> None:
        self.cancel = False

    @workflow.signal
    def stop(self) -> None:
        self.cancel = True

    @workflow.run
    async def run(self, name: str) -> str:
        handle = workflow.start_activity(
            name,
            start_to_close_timeout=timedelta(seconds=30),
            heartbeat_timeout=timedelta(seconds=1),
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )
        await workflow.wait_condition(lambda: self.cancel)
        handle.cancel()
        return await handle


BOTH = pytest.mark.parametrize("governed", [True, False], ids=["with the plugin", "without"])


@BOTH
@pytest.mark.parametrize("body", [returns_when_cancelled, thread_returns_when_cancelled], ids=["async", "thread"])
async def test_a_body_that_is_cancelled_by_its_workflow_may_tidy_up_and_return_a_value(
    stage: Callable[..., Any], governed: bool, body: Any
) -> None:
    s = await stage()
    client = s.client if governed else s.plain
    async with s.worker([CancelsItsActivity], [body], client=client):
        handle = await s.start(CancelsItsActivity.run, body.__name__, client=client)
        await eventually(lambda: deeds(handle.id))
        await handle.signal(CancelsItsActivity.stop)
        assert await handle.result() == "partly done"
    assert deeds(handle.id) == ["began", True]
    assert outcomes(s) == ["completed"] * governed


@BOTH
async def test_a_body_that_is_cancelled_by_its_workflow_and_lets_go_ends_cancelled(
    stage: Callable[..., Any], governed: bool
) -> None:
    s = await stage()
    client = s.client if governed else s.plain
    async with s.worker([CancelsItsActivity], [beats], client=client):
        handle = await s.start(CancelsItsActivity.run, "beats", client=client)
        await eventually(lambda: deeds(handle.id))
        await handle.signal(CancelsItsActivity.stop)
        with pytest.raises(WorkflowFailureError) as raised:
            await handle.result()
    assert isinstance(raised.value.cause, ActivityError)
    assert type(raised.value.cause.cause).__name__ == "CancelledError"
    assert outcomes(s) == ["cancelled"] * governed


@BOTH
async def test_timeouts_are_as_they_were(stage: Callable[..., Any], governed: bool) -> None:
    s = await stage()
    client = s.client if governed else s.plain
    async with s.worker([OneActivity], BODIES, client=client):
        slow = await start_one(s, sleeps, seconds=0.5, client=client)
        silent = await start_one(s, sleeps, heartbeat=0.5, client=client)
        types = []
        for handle in (slow, silent):
            with pytest.raises(WorkflowFailureError) as raised:
                await handle.result()
            cause = raised.value.cause.cause
            assert isinstance(cause, TemporalTimeoutError)
            types.append(cause.type.name)
    assert types == ["START_TO_CLOSE", "HEARTBEAT"]


@BOTH
async def test_a_paused_activity_may_tidy_up_and_runs_again_when_it_is_unpaused(
    stage: Callable[..., Any], governed: bool
) -> None:
    s = await stage()
    client = s.client if governed else s.plain
    async with s.worker([OneActivity], [tidies_up_when_paused], client=client):
        handle = await start_one(s, tidies_up_when_paused, attempts=5, heartbeat=1, client=client)
        await eventually(lambda: deeds(handle.id))
        where = {
            "namespace": client.namespace,
            "execution": WorkflowExecution(workflow_id=handle.id),
            "type": "tidies_up_when_paused",
        }
        await s.plain.workflow_service.pause_activity(PauseActivityRequest(**where))
        await eventually(lambda: deeds(handle.id) == ["began", True])
        await s.plain.workflow_service.unpause_activity(UnpauseActivityRequest(**where))
        assert await handle.result() == "second attempt"


async def test_heartbeats_and_results_carry_nothing_of_ours_to_the_workflow(stage: Callable[..., Any]) -> None:
    s = await stage()
    async with s.worker([OneActivity], BODIES):
        handle = await start_one(s, quick)
        assert await handle.result() == "done"
    history = await handle.fetch_history()
    closed = history.events[-1].workflow_execution_completed_event_attributes.result.payloads[0]
    assert not [key for key in closed.metadata if key.startswith(PREFIX)]


@pytest.mark.rule("B4")
async def test_a_process_sees_that_it_is_cancelled_and_the_others_of_its_pool_go_on_beating(
    stage: Callable[..., Any], processes: dict[str, Any], tmp_path: Path
) -> None:
    s = await stage()
    often = timedelta(milliseconds=100)
    ended, stop = tmp_path / "ended", tmp_path / "stop"
    async with s.worker(
        [OneActivity], [in_process, beats_in_process], max_heartbeat_throttle_interval=often, **processes
    ):
        revoked = await start_one(s, in_process, str(ended), attempts=5, heartbeat=30)
        spared = await start_one(s, beats_in_process, str(stop), heartbeat=30)

        async def beaten() -> int:
            pending = (await spared.describe()).raw_description.pending_activities
            payloads = pending[0].heartbeat_details.payloads if pending else ()
            return int(payloads[0].data) if payloads else 0

        async def beats_beyond(count: int) -> int:
            while (now := await beaten()) <= count:  # noqa: ASYNC110 (the server is asked)
                await asyncio.sleep(0.05)
            return now

        before = await asyncio.wait_for(beats_beyond(0), 60)
        await eventually(lambda: ended.exists() and ended.read_text() == "began")
        s.plugin.revoke(workflow=revoked.id, reason="stop")
        failure = await failure_of(revoked)
        assert failure.type == "AuthorizationRevoked"
        await eventually(lambda: ended.read_text() == "saw it")
        await asyncio.wait_for(beats_beyond(before + 1), 60)
        stop.touch()
        assert await spared.result() > before
