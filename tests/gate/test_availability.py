"""What cannot be decided does not run; it waits, fails retryably, or goes to a worker that can decide."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from temporalio import activity, workflow
from temporalio.client import WorkflowHandle
from temporalio.worker import (
    CustomSlotSupplier,
    FixedSizeSlotSupplier,
    SlotPermit,
    WorkerTuner,
)

from exequatur.errors import ConfigurationError, ExequaturError
from exequatur.statements.models import Receipt
from tests.gate.conftest import Stage, deeds, failure_of, happened, unique
from tests.gate.single import OneActivity, eventually, start_one

CENTURY = 100 * 365 * 86400
SOON = {"unavailable_wait": "300ms", "unavailable_retry_delay": "200ms"}


@activity.defn
async def act() -> str:
    happened("ran")
    return "done"


# What can go wrong, and how it is put right again.


@asynccontextmanager
async def no_journal(stage: Stage) -> AsyncIterator[None]:
    """The file is moved away and put back."""
    await eventually(lambda: stage.plugin.gate.journal)
    journal = stage.plugin.gate.require_journal()
    aside = journal.path.with_suffix(".aside")
    journal.path.rename(aside)
    await eventually(lambda: not journal.healthy)
    yield
    aside.rename(journal.path)


@asynccontextmanager
async def open_journal(stage: Stage) -> AsyncIterator[None]:
    """Others can read it."""
    journal = stage.plugin.gate.require_journal()
    journal.path.chmod(0o644)
    await eventually(lambda: not journal.healthy)
    yield
    journal.path.chmod(0o600)


@asynccontextmanager
async def replaced_journal(stage: Stage) -> AsyncIterator[None]:
    """Another file stands in its place."""
    journal = stage.plugin.gate.require_journal()
    aside = journal.path.with_suffix(".aside")
    journal.path.rename(aside)
    journal.path.write_bytes(b"not a journal")
    await eventually(lambda: not journal.healthy)
    yield
    aside.replace(journal.path)


@asynccontextmanager
async def corrupt_feed(stage: Stage) -> AsyncIterator[None]:
    path = stage.state / "revocations"
    path.write_text("nonsense\n")
    await eventually(lambda: stage.plugin.gate.revocations.problem)
    yield
    path.write_text("")


@asynccontextmanager
async def shortened_feed(stage: Stage) -> AsyncIterator[None]:
    """A revocation was taken out."""
    path = stage.state / "revocations"
    stage.plugin.revoke(workflow="another", reason="stop")
    text = path.read_text()
    path.unlink()
    await eventually(lambda: stage.plugin.gate.revocations.problem)
    yield
    path.write_text(text)


@asynccontextmanager
async def stale_feed(stage: Stage) -> AsyncIterator[None]:
    """Nobody has looked at it for a while."""
    feed = stage.plugin.gate.revocations
    refresh = feed.refresh
    feed.refresh = lambda: None
    feed._read_at -= 6
    yield
    feed.refresh = refresh


@asynccontextmanager
async def past_century(stage: Stage) -> AsyncIterator[None]:
    stage.plugin.gate.clock = lambda: 86_400.0  # a machine whose battery is empty
    yield
    stage.plugin.gate.clock = time.time


@asynccontextmanager
async def next_century(stage: Stage) -> AsyncIterator[None]:
    stage.plugin.gate.clock = lambda: time.time() + CENTURY
    yield
    stage.plugin.gate.clock = time.time


@asynccontextmanager
async def lapsed_credential(stage: Stage) -> AsyncIterator[None]:
    """The authority refuses to renew it, and it ends."""
    authority = stage.plugin.gate.workload._issuer
    issue = authority.issue_credential

    def refuse(_: Any) -> str:
        raise ExequaturError("the authority is closed")

    authority.issue_credential = refuse
    stage.plugin.gate.clock = lambda: time.time() + 3700
    await eventually(lambda: "closed" in (stage.plugin.gate.workload.problem or ""))
    yield
    stage.plugin.gate.clock = time.time
    authority.issue_credential = issue


CAUSES = [
    pytest.param(no_journal, "journal", marks=pytest.mark.rule("U2")),
    pytest.param(open_journal, "journal", marks=pytest.mark.rule("U2")),
    pytest.param(replaced_journal, "journal", marks=pytest.mark.rule("U2")),
    pytest.param(corrupt_feed, "revocations cannot be used", marks=pytest.mark.rule("U3")),
    pytest.param(shortened_feed, "entries have been changed or removed", marks=pytest.mark.rule("U3")),
    pytest.param(stale_feed, "not read in time", marks=pytest.mark.rule("U3")),
    pytest.param(past_century, "the clock shows", marks=pytest.mark.rule("U1")),
    pytest.param(next_century, "the clock shows", marks=pytest.mark.rule("U1")),
    pytest.param(lapsed_credential, "the authority is closed", marks=pytest.mark.rule("U4")),
]


@pytest.mark.rule("F1")
@pytest.mark.parametrize(("broken", "reason"), CAUSES)
async def test_what_cannot_be_decided_fails_retryably_and_runs_when_it_can_be(
    stage: Callable[..., Any], broken: Any, reason: str
) -> None:
    s = await stage(**SOON)
    # One poller whose slot was reserved while all was well: the task that comes now does reach the gate.
    async with s.worker([OneActivity], [act], max_concurrent_activities=1, max_concurrent_activity_task_polls=1):
        assert await (await start_one(s, act)).result() == "done"
        handle = await start_one(s, act, attempts=0, start_delay=timedelta(seconds=1))
        async with broken(s):
            assert reason in (s.plugin.gate.unavailable() or "")
            failure = await last_failure(handle)
            assert failure.application_failure_info.type == "AuthorizationUnavailable"
            assert not failure.application_failure_info.non_retryable
            assert failure.application_failure_info.next_retry_delay.ToTimedelta() == timedelta(milliseconds=200)
            assert reason in failure.message
            # Its next attempt is not even asked for.
            await asyncio.sleep(0.5)
            pending = (await handle.describe()).raw_description.pending_activities[0]
            assert pending.attempt == 2
            assert deeds(handle.id) == []
        assert await asyncio.wait_for(handle.result(), 60) == "done"
    assert deeds(handle.id) == ["ran"]


async def last_failure(handle: WorkflowHandle[Any, Any]) -> Any:
    """How the first attempt of the pending activity ended."""
    for _ in range(500):
        pending = (await handle.describe()).raw_description.pending_activities
        if pending and pending[0].HasField("last_failure"):
            return pending[0].last_failure
        await asyncio.sleep(0.02)
    raise AssertionError("the attempt has not failed")


async def test_an_attempt_waits_for_what_is_soon_put_right(stage: Callable[..., Any]) -> None:
    s = await stage(unavailable_wait="20s")
    async with s.worker([OneActivity], [act], max_concurrent_activities=1, max_concurrent_activity_task_polls=1):
        assert await (await start_one(s, act)).result() == "done"
        handle = await start_one(s, act, start_delay=timedelta(seconds=1))
        async with past_century(s):
            for _ in range(500):
                pending = (await handle.describe()).raw_description.pending_activities
                if pending and pending[0].state == 2:  # started
                    break
                await asyncio.sleep(0.02)
            await asyncio.sleep(0.1)
            assert deeds(handle.id) == []
        assert await handle.result() == "done"
    [*_, receipt] = s.statements("receipt", Receipt)
    assert receipt.attempt == 1


async def test_with_two_workers_and_one_broken_store_no_run_fails(stage: Callable[..., Any]) -> None:
    broken = await stage(**SOON)
    healthy = await stage(state=broken.state, **SOON)
    assert broken.plugin is not healthy.plugin
    # A workflow worker of its own, so that only the activities are at stake.
    async with (
        broken.worker((), [act]),
        healthy.worker([OneActivity], [act], queue=broken.queue),
        no_journal(broken),
    ):
        handles = [await start_one(healthy, act, attempts=0, task_queue=broken.queue) for _ in range(30)]
        assert await asyncio.gather(*(handle.result() for handle in handles)) == ["done"] * 30
        refused = broken.plugin.gate.journal
        assert refused is not None
        assert not refused.healthy
    assert all(deeds(handle.id) == ["ran"] for handle in handles)


async def test_a_worker_that_cannot_authorize_still_shuts_down(stage: Callable[..., Any]) -> None:
    s = await stage(**SOON)
    broken = corrupt_feed(s)
    async with asyncio.timeout(20):
        async with s.worker([OneActivity], [act], max_concurrent_activities=2):
            await broken.__aenter__()
            await asyncio.sleep(0.3)


@pytest.mark.parametrize("offset", [-CENTURY, CENTURY])
async def test_a_worker_does_not_start_in_the_wrong_century(stage: Callable[..., Any], offset: int) -> None:
    s = await stage()
    s.plugin.gate.clock = lambda: time.time() + offset
    with pytest.raises(ConfigurationError, match=r"The clock shows -?\d+ seconds since 1970; set it"):
        async with s.worker([OneActivity], [act]):
            await asyncio.sleep(5)


# Observing.


@pytest.mark.parametrize("broken", [no_journal, corrupt_feed, past_century, lapsed_credential])
async def test_where_it_only_observes_it_blocks_nothing(stage: Callable[..., Any], broken: Any) -> None:
    s = await stage(mode="observe", **SOON)
    async with s.worker([OneActivity], [act]):
        handles = [await start_one(s, act, start_delay=timedelta(seconds=1)) for _ in range(3)]
        async with broken(s):
            async with asyncio.timeout(20):
                assert [await handle.result() for handle in handles] == ["done"] * 3
    receipts = s.statements("receipt", Receipt)
    assert [receipt.enforced for receipt in receipts] == [False] * len(receipts)


async def test_where_it_only_observes_the_record_says_what_would_have_been(stage: Callable[..., Any]) -> None:
    s = await stage('@id("start") permit(principal, action == Action::"workflow.start", resource);', mode="observe")
    async with s.worker([OneActivity], [act]):
        handle = await start_one(s, act)
        assert await handle.result() == "done"
    [receipt] = s.statements("receipt", Receipt)
    assert (receipt.decision, receipt.enforced, receipt.outcome) == ("deny", False, "completed")
    [decision] = s.records("decision")
    assert b'"enforced":false' in decision.body


# Slots.


class Counting(CustomSlotSupplier):
    """A user's own: at most ``size`` at once."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.used = self.peak = 0
        self.lock = threading.Lock()

    def _take(self) -> SlotPermit | None:
        with self.lock:
            if self.used >= self.size:
                return None
            self.used += 1
            self.peak = max(self.peak, self.used)
            return SlotPermit()

    async def reserve_slot(self, ctx: Any) -> SlotPermit:
        while (permit := self._take()) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        return permit

    def try_reserve_slot(self, ctx: Any) -> SlotPermit | None:
        return self._take()

    def mark_slot_used(self, ctx: Any) -> None: ...

    def release_slot(self, ctx: Any) -> None:
        with self.lock:
            self.used -= 1


def tuner(activities: Any) -> WorkerTuner:
    return WorkerTuner.create_composite(
        workflow_supplier=FixedSizeSlotSupplier(10),
        activity_supplier=activities,
        local_activity_supplier=FixedSizeSlotSupplier(10),
        nexus_supplier=FixedSizeSlotSupplier(10),
    )


@workflow.defn
class FanOut:
    @workflow.run
    async def run(self, count: int) -> int:
        together = (
            workflow.execute_activity("together", start_to_close_timeout=timedelta(seconds=30)) for _ in range(count)
        )
        return max(await asyncio.gather(*together))


async def peak(stage: Callable[..., Any], **options: Any) -> int:
    """How many of twelve activities were running at once."""
    s = await stage()
    now = 0

    @activity.defn
    async def together() -> int:
        nonlocal now
        now += 1
        seen = now
        await asyncio.sleep(0.1)
        now -= 1
        return seen

    async with s.worker([FanOut], [together], **options):
        handle = await s.start(FanOut.run, 12)
        return int(await handle.result())


@pytest.mark.parametrize("eager", [True, False], ids=["eager", "polled"])
async def test_a_workers_limit_of_activities_holds(stage: Callable[..., Any], eager: bool) -> None:
    assert await peak(stage, disable_eager_activity_execution=not eager, max_concurrent_activities=3) == 3


async def test_a_fixed_tuner_holds(stage: Callable[..., Any]) -> None:
    assert await peak(stage, tuner=tuner(FixedSizeSlotSupplier(2))) == 2


async def test_a_tuner_of_the_users_own_holds(stage: Callable[..., Any]) -> None:
    supplier = Counting(2)
    assert await peak(stage, tuner=tuner(supplier)) == 2
    assert supplier.peak == 2


async def test_a_resource_based_tuner_works_and_a_warning_says_what_it_cannot(
    stage: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    resources = WorkerTuner.create_resource_based(
        target_memory_usage=0.99, target_cpu_usage=0.99, activity_config=None, workflow_config=None
    )
    assert await peak(stage, tuner=resources, activity_executor=None) >= 1
    assert "A resource-based tuner cannot be withheld" in caplog.text


async def test_activities_still_start_eagerly(stage: Callable[..., Any]) -> None:
    s = await stage()
    async with s.worker([OneActivity], [act]):
        handle = await start_one(s, act)
        await handle.result()
    history = await handle.fetch_history()
    [scheduled] = [e for e in history.events if e.HasField("activity_task_scheduled_event_attributes")]
    [started] = [e for e in history.events if e.HasField("activity_task_started_event_attributes")]
    # An eager activity is started in the same server transaction that schedules it.
    assert started.event_time.ToNanoseconds() - scheduled.event_time.ToNanoseconds() < 10**9
    assert deeds(handle.id) == ["ran"]


async def test_a_second_worker_of_the_same_plugin_costs_the_first_no_receipt(stage: Callable[..., Any]) -> None:
    s = await stage()
    go_on = threading.Event()

    @activity.defn
    def waits() -> str:
        happened("began")
        go_on.wait(20)
        return "done"

    with ThreadPoolExecutor(2) as pool:
        async with s.worker([OneActivity], [waits], activity_executor=pool):
            handle = await start_one(s, waits)
            await eventually(lambda: deeds(handle.id))
            async with s.worker((), [act], queue=unique("queue")):
                go_on.set()
                assert await handle.result() == "done"


async def test_a_worker_that_was_refused_a_credential_says_so(stage: Callable[..., Any]) -> None:
    s = await stage(**SOON)

    def refuse(_: Any) -> str:
        raise ExequaturError("the authority is closed")

    s.plugin.gate.workload._issuer.issue_credential = refuse
    async with s.worker((), [act]):
        await eventually(lambda: "the authority is closed" in (s.plugin.gate.unavailable() or ""))


async def test_failures_of_the_activity_itself_are_not_ours(stage: Callable[..., Any]) -> None:
    s = await stage()

    @activity.defn
    async def breaks() -> None:
        raise ValueError("as it always did")

    async with s.worker([OneActivity], [breaks]):
        failure = await failure_of(await start_one(s, breaks, attempts=2))
    assert failure.type == "ValueError"
    assert [receipt.outcome for receipt in s.statements("receipt", Receipt)] == ["failed", "failed"]
