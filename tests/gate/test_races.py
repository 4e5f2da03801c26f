"""The races that a gate could change. Each is run gated and ungated, and must end in the same way."""

import asyncio
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity, workflow
from temporalio.api.enums.v1 import EventType
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ActivityError, is_cancelled_exception
from temporalio.worker import Replayer, Worker

from exequatur.statements.models import Receipt
from tests.gate.conftest import PERMIT_ALL, Stage, deeds, events, failure_of, happened, sandbox, unique

TIMEOUT = timedelta(seconds=60)


@activity.defn
async def quick() -> str:
    happened("quick")
    return "quick"


@activity.defn
async def wait_for_cancel() -> str:
    happened("began")
    try:
        while True:
            activity.heartbeat()
            await asyncio.sleep(0.05)
    except asyncio.CancelledError:
        happened("cancelled")
        raise


@workflow.defn
class AgainstTimer:
    """A timer and an activity whose completion arrive in one workflow task."""

    @workflow.run
    async def run(self) -> str:
        try:
            return await asyncio.wait_for(
                workflow.execute_activity(quick, start_to_close_timeout=TIMEOUT), timeout=self.seconds()
            )
        except TimeoutError:
            return "timed out"

    def seconds(self) -> float:
        return 1.0


@workflow.defn
class CancelsBeforeStart:
    @workflow.run
    async def run(self) -> str:
        handle = workflow.start_activity(quick, start_to_close_timeout=TIMEOUT)
        handle.cancel()
        try:
            return await handle
        except (ActivityError, asyncio.CancelledError) as err:
            return f"{type(err).__name__} {is_cancelled_exception(err)}"


@workflow.defn
class CancelsLater:
    @workflow.run
    async def run(self) -> str:
        handle = workflow.start_activity(
            wait_for_cancel,
            start_to_close_timeout=TIMEOUT,
            heartbeat_timeout=timedelta(seconds=2),
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )
        await asyncio.sleep(0.5)
        handle.cancel()
        try:
            return await handle
        except ActivityError as err:
            return "cancelled" if is_cancelled_exception(err) else "failed"


@workflow.defn
class Resumes:
    """Says in which order its tasks resumed."""

    @workflow.run
    async def run(self) -> list[str]:
        order: list[str] = []

        async def one(name: str) -> None:
            await workflow.execute_activity(quick, start_to_close_timeout=TIMEOUT)
            order.append(f"{name} resumed")
            await asyncio.sleep(0)
            order.append(f"{name} went on")

        await asyncio.gather(one("a"), one("b"), one("c"))
        return order


@workflow.defn
class Calls:
    @workflow.run
    async def run(self, name: str) -> Any:
        return await workflow.execute_activity(name, start_to_close_timeout=TIMEOUT)


async def until(handle: Any, *types: EventType.ValueType) -> None:
    """Wait until the history has an event of each type."""
    for _ in range(2000):
        if set(types) <= {event.event_type for event in await events(handle)}:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("the history did not get there")


async def replays_without_the_plugin(handle: Any, *workflows: type) -> None:
    replayer = Replayer(workflows=workflows, workflow_runner=sandbox())
    await replayer.replay_workflow(await handle.fetch_history())


async def against_timer(s: Stage, gated: bool, first: str) -> Any:
    client = s.client if gated else s.plain
    # Without a cache the workflow task is not bound to a worker that is gone.
    options = {"client": client, "max_cached_workflows": 0}
    async with s.worker([AgainstTimer], **options):
        handle = await s.start(AgainstTimer.run, client=client)
        await until(handle, EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED, EventType.EVENT_TYPE_TIMER_STARTED)
    if first == "timer":
        await until(handle, EventType.EVENT_TYPE_TIMER_FIRED)
    async with s.worker(activities=[quick], client=client):
        await until(handle, EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED, EventType.EVENT_TYPE_TIMER_FIRED)
    async with s.worker([AgainstTimer], **options):
        return handle, await handle.result()


@pytest.mark.parametrize("first", ["activity", "timer"])
async def test_who_wins_when_timer_and_completion_arrive_together_is_as_without_the_gate(stage, first):
    s = await stage()
    (gated, won), (_, ungated) = await asyncio.gather(
        against_timer(s, True, first), against_timer(await stage(), False, first)
    )
    assert won == ungated
    await replays_without_the_plugin(gated, AgainstTimer)


async def test_an_activity_that_is_cancelled_before_it_starts_ends_as_without_the_gate(stage):
    s = await stage()
    outcomes = []
    for client in (s.client, s.plain):
        async with s.worker([CancelsBeforeStart], [quick], client=client):
            handle = await s.start(CancelsBeforeStart.run, client=client)
            outcomes.append(await handle.result())
        assert deeds(handle.id) == []
        await replays_without_the_plugin(handle, CancelsBeforeStart)
    assert outcomes[0] == outcomes[1]


async def test_an_activity_that_is_cancelled_while_it_runs_ends_as_without_the_gate(stage):
    s = await stage()
    for client in (s.client, s.plain):
        async with s.worker([CancelsLater], [wait_for_cancel], client=client):
            handle = await s.start(CancelsLater.run, client=client)
            assert await handle.result() == "cancelled"
        assert deeds(handle.id) == ["began", "cancelled"]
        await replays_without_the_plugin(handle, CancelsLater)


async def test_tasks_resume_in_the_order_in_which_they_resume_without_the_gate(stage):
    s = await stage()
    orders = []
    for client in (s.client, s.plain):
        # All three completions in one workflow task.
        async with s.worker([Resumes], client=client, max_cached_workflows=0):
            handle = await s.start(Resumes.run, client=client)
            await until(handle, EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED)
        async with s.worker(activities=[quick], client=client, max_concurrent_activities=1):
            while len(deeds(handle.id)) < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        async with s.worker([Resumes], client=client, max_cached_workflows=0):
            order = await handle.result()
        # Which activity the server hands out first is chance; how the workflow goes on from there is not.
        ranks = {name: str(rank) for rank, name in enumerate(dict.fromkeys(line[0] for line in order))}
        orders.append([ranks[line[0]] + line[1:] for line in order])
    assert orders[0] == orders[1]


async def test_a_cancel_that_comes_after_the_body_finished_does_not_lose_the_result(stage):
    s = await stage()
    workers: list[Worker] = []

    @activity.defn(name="late")
    async def late() -> str:
        # As the SDK cancels: the task that runs the attempt. It gets there when the body has returned.
        running = workers[0]._activity_worker._running_activities[activity.info().task_token]
        asyncio.get_running_loop().call_soon(running.task.cancel)
        happened("finished")
        return "finished"

    async with s.worker([Calls], [late]) as worker:
        workers.append(worker)
        handle = await s.start(Calls.run, "late")
        assert await handle.result() == "finished"
    assert deeds(handle.id) == ["finished"]
    assert [receipt.outcome for receipt in s.receipts(handle)] == ["completed"]


@pytest.mark.rule("F6")
async def test_a_policy_that_changes_while_the_decision_is_being_written_is_what_decides(stage, monkeypatch):
    s = await stage()
    stricter = await stage(PERMIT_ALL + '@id("no") forbid(principal, action == Action::"quick", resource);')
    gate = s.plugin.gate
    async with s.worker([Calls], [quick]):
        while gate.journal is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        journal = gate.journal
        append = journal.append_decision

        async def written_while_the_policy_changes(*args: Any, **options: Any) -> Any:
            entry = await append(*args, **options)
            monkeypatch.undo()
            gate.put_in_force(stricter.plugin.gate.policy.bundle)
            return entry

        monkeypatch.setattr(journal, "append_decision", written_while_the_policy_changes)
        handle = await s.start(Calls.run, "quick")
        failure = await failure_of(handle)
    assert failure.type == "AuthorizationDenied"
    assert deeds(handle.id) == []
    assert [record.kind for record in s.records()].count("decision") == 2


@pytest.mark.rule("F6")
async def test_a_policy_that_is_put_in_force_while_an_attempt_is_being_judged_is_what_decides(stage):
    s = await stage()
    stricter = await stage(PERMIT_ALL + '@id("no") forbid(principal, action == Action::"quick", resource);')
    gate, usual = s.plugin.gate, type(s.plugin.gate)

    class Interrupted(usual):
        """Another thread gets its turn right after the policy was read."""

        def __getattribute__(self, name: str) -> Any:
            value = super().__getattribute__(name)
            if name == "policy":
                self.__class__ = usual
                self.put_in_force(stricter.plugin.gate.policy.bundle)
            return value

    async with s.worker([Calls]):
        handle = await s.start(Calls.run, "quick")  # granted by the policy from before
        gate.__class__ = Interrupted
        async with s.worker([], [quick]):
            failure = await failure_of(handle)
    assert type(gate) is usual
    assert failure.type == "AuthorizationDenied"
    assert deeds(handle.id) == []


FORGED = """
import asyncio, sys
from pathlib import Path
from tests.gate.test_races import forged_receipt_in_a_process_of_its_own
asyncio.run(forged_receipt_in_a_process_of_its_own(sys.argv[1], Path(sys.argv[2])))
"""


async def forged_receipt_in_a_process_of_its_own(target: str, folder: Path) -> None:
    """Run by the test below: the first signature that fails in this process is the forged receipt's."""
    from temporalio.client import Client
    from temporalio.common import RawValue
    from temporalio.converter import DataConverter

    from exequatur import AuthorizationPlugin, Principal
    from exequatur.gate.wire import RECEIPT
    from exequatur.statements.packing import pack

    (folder / "policies").mkdir()
    (folder / "policies" / "main.cedar").write_text(PERMIT_ALL)
    plugin = AuthorizationPlugin.embedded(
        folder / "policies", state_dir=folder / "state", principal=Principal("Agent", "bot")
    )
    client, plain = await Client.connect(target, plugins=[plugin]), await Client.connect(target)
    queue = unique("queue")

    @activity.defn(name="quick")
    async def forges() -> RawValue:
        workload = plugin.gate.workload
        receipt = workload.sign(
            Receipt(
                iss=workload.id,
                iat=1.0,
                activity_id="1",
                activity_type="quick",
                attempt=1,
                decision="allow",
                enforced=True,
                outcome="completed",
            )
        ).text
        forged = receipt[:-8] + ("AAAAAAAA" if not receipt.endswith("AAAAAAAA") else "BBBBBBBB")
        [payload] = DataConverter.default.payload_converter.to_payloads(["stolen"])
        payload.metadata[RECEIPT] = pack([forged], [workload.credential.text])
        return RawValue(payload)

    async with (
        Worker(client, task_queue=queue, workflows=[Calls], workflow_runner=sandbox()),
        Worker(plain, task_queue=queue, activities=[forges]),
    ):
        try:
            await client.execute_workflow(
                Calls.run, "quick", id=unique(), task_queue=queue, execution_timeout=timedelta(seconds=120)
            )
        except WorkflowFailureError as err:
            print(err.cause.cause.type)  # type: ignore[union-attr]


async def test_a_forged_receipt_does_not_abort_a_process_that_has_not_seen_a_bad_signature_before(target, tmp_path):
    root = Path(__file__).parents[2]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        FORGED,
        target,
        str(tmp_path),
        cwd=root,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [root, *sys.path]))},
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, err.decode()[-2000:]
    assert out.decode().strip() == "ReceiptRejected"
