"""A worker without the gate, or one that forges, gains nothing: the workflow refuses its results."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from temporalio import activity, workflow
from temporalio.api.common.v1 import Payload
from temporalio.api.enums.v1 import EventType
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import PollActivityTaskQueueRequest, RespondActivityTaskCompletedRequest
from temporalio.common import RawValue
from temporalio.converter import DataConverter

from exequatur.gate.wire import RECEIPT, payloads_digest
from exequatur.statements.jws import parse, sign
from exequatur.statements.keys import SigningKey
from exequatur.statements.models import Receipt, WorkloadCredential
from exequatur.statements.packing import pack, unpack
from tests.gate.conftest import deeds, events, failure_of, happened, headed, receipt_in, unique

TIMEOUT = timedelta(seconds=60)


@activity.defn
def first(what: str) -> str:
    happened(("first", what))
    return what


@activity.defn
def second(what: str) -> str:
    happened(("second", what))
    return what


@activity.defn
async def nothing() -> None:
    happened("nothing")


@workflow.defn
class Steps:
    """Believes the first result only if it is proven; the second step is what a rogue would gain."""

    @workflow.run
    async def run(self, what: str, queue: str | None = None) -> str:
        believed = await workflow.execute_activity(first, what, start_to_close_timeout=TIMEOUT, task_queue=queue)
        return await workflow.execute_activity(second, believed, start_to_close_timeout=TIMEOUT)


@workflow.defn
class Nothing:
    @workflow.run
    async def run(self) -> None:
        return await workflow.execute_activity(nothing, start_to_close_timeout=TIMEOUT)


def rogue(answer: Callable[[str], Any]) -> Callable[..., Any]:
    """An activity ``first`` that gives any answer at all."""

    @activity.defn(name="first")
    def body(what: str) -> Any:
        happened("rogue")
        return answer(what)

    return body


def answering(value: Any, metadata: dict[str, bytes]) -> RawValue:
    [payload] = DataConverter.default.payload_converter.to_payloads([value])
    payload.metadata.update(metadata)
    return RawValue(payload)


async def results(handle: Any) -> list[Payload]:
    """The payloads of a run's activity results."""
    return [
        event.activity_task_completed_event_attributes.result.payloads[0]
        for event in await events(handle)
        if event.HasField("activity_task_completed_event_attributes")
    ]


@pytest.mark.rule("F8")
async def test_every_result_carries_a_receipt_that_is_in_the_journal_too(stage):
    s = await stage()
    async with s.worker([Steps], [first, second]):
        handle = await s.start(Steps.run, "x")
        assert await handle.result() == "x"
    proven = [receipt_in(payload) for payload in await results(handle)]
    assert [receipt.outcome for receipt in proven] == ["completed", "completed"]
    assert proven == s.receipts(handle)
    for receipt, payload in zip(proven, await results(handle), strict=True):
        assert receipt.result == payloads_digest([payload])


@pytest.mark.rule("I4")
async def test_a_credential_names_its_workers_places_and_ends(stage):
    s = await stage(credential_ttl=timedelta(minutes=7))
    async with s.worker([Steps], [first, second]):
        handle = await s.start(Steps.run, "x")
        await handle.result()
    tokens = unpack((await results(handle))[0].metadata[RECEIPT])
    credential = parse(tokens[0], WorkloadCredential).claims
    assert credential.exp - credential.iat == 420
    assert credential.task_queues == (s.queue,)
    assert set(credential.activities) == {"first", "second"}
    assert credential.namespaces == ("default",)


@pytest.mark.rule("X2")
async def test_a_rogue_worker_without_the_plugin_gains_nothing(stage):
    s = await stage()
    async with s.worker([Steps]), s.worker(activities=[rogue(lambda what: "stolen"), second], client=s.plain):
        handle = await s.start(Steps.run, "x")
        failure = await failure_of(handle)
    assert failure.type == "ReceiptRejected"
    assert "without a receipt" in failure.message
    assert deeds(handle.id) == ["rogue"]


async def poll(s: Any) -> Any:
    """Take an activity task as any client can."""
    return await s.plain.workflow_service.poll_activity_task_queue(
        PollActivityTaskQueueRequest(namespace="default", task_queue=TaskQueue(name=s.queue), identity="rogue")
    )


@pytest.mark.parametrize("kind", [Steps, Nothing], ids=["where a value is awaited", "where nothing is awaited"])
async def test_a_completion_without_any_payload_is_refused(stage, kind):
    s = await stage()
    async with s.worker([Steps, Nothing]):
        handle = await s.start(kind.run, *(["x"] if kind is Steps else []))
        task = await poll(s)
        await s.plain.workflow_service.respond_activity_task_completed(
            RespondActivityTaskCompletedRequest(namespace="default", task_token=task.task_token)
        )
        failure = await failure_of(handle)
    assert failure.type == "ReceiptRejected"


async def test_an_activity_that_returns_nothing_is_believed_with_its_receipt(stage):
    s = await stage()
    async with s.worker([Nothing], [nothing]):
        handle = await s.start(Nothing.run)
        assert await handle.result() is None
    assert deeds(handle.id) == ["nothing"]


def forgery(s: Any, packed: bytes, how: str) -> dict[str, bytes]:
    """A receipt made by somebody who has seen a good one of another run."""
    *credentials, token = unpack(packed)
    claims = parse(token, Receipt).claims
    key = SigningKey.generate()
    forged = sign(claims, key).text
    head, body, _ = token.split(".")
    made = {
        "signed with a key of its own": [*credentials, forged],
        "signed with a key of its own under the worker's name": [*credentials, f"{head}.{body}.{forged.split('.')[2]}"],
        "copied from another run": [*credentials, token],
        "without a credential": [token],
    }
    return {RECEIPT: pack(made[how])}


FORGERIES = [
    "signed with a key of its own",
    "signed with a key of its own under the worker's name",
    "copied from another run",
    "without a credential",
]


@pytest.mark.parametrize("how", FORGERIES)
async def test_a_forged_receipt_in_a_sandboxed_worker_is_refused_and_the_process_lives(stage, how):
    s = await stage()
    async with s.worker([Steps], [first, second]):
        honest = await s.start(Steps.run, "x")
        await honest.result()
    good = (await results(honest))[0].metadata[RECEIPT]
    async with (
        s.worker([Steps]),
        s.worker(activities=[rogue(lambda what: answering("x", forgery(s, good, how))), second], client=s.plain),
    ):
        handle = await s.start(Steps.run, "x")
        failure = await failure_of(handle)
    assert failure.type == "ReceiptRejected"
    assert deeds(handle.id) == ["rogue"]


@pytest.mark.parametrize("garbage", [b"", b"\x01", b"\x01\x00\x05abc", b"\x01" + b"\xff" * 5000])
async def test_a_receipt_that_cannot_be_read_is_refused(stage, garbage):
    s = await stage()
    async with (
        s.worker([Steps]),
        s.worker(activities=[rogue(lambda what: answering("x", {RECEIPT: garbage})), second], client=s.plain),
    ):
        handle = await s.start(Steps.run, "x")
        failure = await failure_of(handle)
    assert failure.type == "ReceiptRejected"


@workflow.defn
class Pair:
    """Two activities of one type at a time."""

    @workflow.run
    async def run(self) -> list[str]:
        return list(
            await asyncio.gather(
                *(workflow.execute_activity(first, what, start_to_close_timeout=TIMEOUT) for what in ("a", "b"))
            )
        )


async def test_a_result_with_the_receipt_of_another_activity_of_the_run_is_refused(stage):
    s = await stage()
    async with s.worker([Pair]):
        handle = await s.start(Pair.run)
        held = await poll(s)
        async with s.worker(activities=[first]):
            while not (proven := await results(handle)):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        answer = RespondActivityTaskCompletedRequest(namespace="default", task_token=held.task_token)
        answer.result.payloads.append(proven[0])
        await s.plain.workflow_service.respond_activity_task_completed(answer)
        failure = await failure_of(handle)
    assert failure.type == "ReceiptRejected"
    assert "another request" in failure.message
    assert len(deeds(handle.id)) == 1


@pytest.mark.rule("X3")
async def test_a_recorded_queue_may_leave_the_receipt_out_but_not_bring_a_wrong_one(stage):
    s = await stage(recorded_queues=("legacy-*",))
    legacy = unique("legacy")
    async with s.worker([Steps], [second]):
        async with s.worker(activities=[rogue(lambda what: "unproven")], client=s.plain, queue=legacy):
            handle = await s.start(Steps.run, "x", legacy)
            assert await handle.result() == "unproven"
        good = (await results(handle))[1].metadata[RECEIPT]
        forged = answering("x", {RECEIPT: good})
        async with s.worker(activities=[rogue(lambda what: forged)], client=s.plain, queue=legacy):
            wrong = await s.start(Steps.run, "x", legacy)
            assert (await failure_of(wrong)).type == "ReceiptRejected"
        elsewhere = unique("other")
        async with s.worker(activities=[rogue(lambda what: "unproven")], client=s.plain, queue=elsewhere):
            strict = await s.start(Steps.run, "x", elsewhere)
            assert (await failure_of(strict)).type == "ReceiptRejected"
    assert deeds(wrong.id) == deeds(strict.id) == ["rogue"]


async def test_under_observe_an_unproven_result_is_believed(stage):
    s = await stage(mode="observe")
    async with s.worker([Steps]), s.worker(activities=[rogue(lambda what: "unproven"), second], client=s.plain):
        handle = await s.start(Steps.run, "x")
        assert await handle.result() == "unproven"


@pytest.mark.rule("W2")
@pytest.mark.parametrize("another", ["workflow id", "workflow type"])
async def test_the_mode_and_recorded_queues_of_a_grant_for_another_workflow_are_not_believed(stage, another):
    s = await stage()
    lenient = {"mode": "observe", "recorded_queues": ("*",)}
    workflow_id = unique()
    if another == "workflow id":
        copied = await s.grant("Steps", unique(), "x", **lenient)
    else:
        copied = await s.grant("Pair", workflow_id, "x", **lenient)
    async with s.worker([Steps]), s.worker(activities=[rogue(lambda what: "stolen"), second], client=s.plain):
        handle = await s.start_with(headed(copied), Steps.run, "x", id=workflow_id)
        failure = await failure_of(handle)
    assert failure.type == "ReceiptRejected"
    assert deeds(handle.id) == ["rogue"]


async def failed_tasks(handle: Any) -> int:
    return sum(event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED for event in await events(handle))


async def until_a_task_fails(handle: Any) -> None:
    for _ in range(1000):
        if await failed_tasks(handle):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("no workflow task has failed")


@pytest.mark.rule("X4")
async def test_a_receipt_under_a_key_that_is_not_known_yet_waits_until_the_anchor_is_added(stage):
    s, other = await stage(), await stage()
    for anchor in s.plugin.gate.trust:
        other.plugin.gate.trust.add(anchor)
    async with s.worker([Nothing]), other.worker(activities=[nothing], queue=s.queue):
        handle = await s.start(Nothing.run)
        await until_a_task_fails(handle)
        for anchor in other.plugin.gate.trust:
            s.plugin.gate.trust.add(anchor)
        assert await handle.result() is None
    assert deeds(handle.id) == ["nothing"]


@pytest.mark.rule("W3")
async def test_a_grant_under_a_key_that_is_not_known_yet_waits_until_the_anchor_is_added(stage):
    s, other = await stage(), await stage()
    async with s.worker([Nothing], [nothing]):
        handle = await other.start(Nothing.run, task_queue=s.queue)
        await until_a_task_fails(handle)
        assert deeds(handle.id) == []
        for anchor in other.plugin.gate.trust:
            s.plugin.gate.trust.add(anchor)
        # The grant names the other stage's queue nowhere but as the run's own, so all of it verifies now.
        assert await handle.result() is None
    assert deeds(handle.id) == ["nothing"]
