"""Heartbeat details are input to the next attempt: they arrive unchanged, or the attempt does not run."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from temporalio import activity
from temporalio.api.common.v1 import Payload
from temporalio.client import WorkflowHandle
from temporalio.common import RawValue
from temporalio.converter import PayloadCodec
from temporalio.exceptions import ApplicationError

from exequatur.gate.codec import ObservingCodec, decoded_here
from exequatur.gate.wire import HEARTBEAT
from exequatur.statements.jws import parse, sign
from exequatur.statements.keys import SigningKey
from exequatur.statements.models import HeartbeatMark
from exequatur.statements.packing import pack, unpack
from tests.gate.conftest import Stage, deeds, failure_of, happened, unique
from tests.gate.single import OneActivity, eventually, start_one

_go_on: dict[str, asyncio.Event] = {}


@dataclass
class Progress:
    done: int
    note: str


DETAILS: list[tuple[Any, ...]] = [
    (7,),
    ("text", 1.5, None, True),
    ({"page": [1, 2, {"x": None}]},),
    (b"\x00\xff",),
    (Progress(3, "half"),),
    (None,),
    (),
]


@activity.defn
async def resumes(which: int) -> str:
    """Leaves details in its first attempt and tells what the second one finds."""
    if activity.info().attempt == 1:
        activity.heartbeat("an older one", "to be replaced")
        activity.heartbeat(*DETAILS[which])
        raise ApplicationError("again")
    found = activity.info().heartbeat_details
    happened(found)
    return repr(found)


@activity.defn
async def waits_then_fails() -> str:
    """Fails its first attempt when the test says so, without a heartbeat of its own."""
    if activity.info().attempt == 1:
        happened("began")
        await _go_on.setdefault(activity.info().workflow_id or "", asyncio.Event()).wait()
        raise ApplicationError("again")
    happened(("resumed", list(activity.info().heartbeat_details)))
    return "done"


@activity.defn
async def beats_then_fails(detail: str) -> str:
    """Heartbeats in its first attempt, fails its second one when the test says so."""
    info = activity.info()
    if info.attempt == 1:
        activity.heartbeat(detail)
        raise ApplicationError("again")
    if info.attempt == 2:
        happened("began")
        await _go_on.setdefault(info.workflow_id or "", asyncio.Event()).wait()
        raise ApplicationError("again")
    happened(("resumed", list(info.heartbeat_details)))
    return "done"


@pytest.mark.parametrize("which", range(len(DETAILS)))
async def test_the_next_attempt_finds_the_same_details_as_without_the_plugin(
    stage: Callable[..., Any], which: int
) -> None:
    s = await stage()
    found = []
    for client in (s.client, s.plain):
        async with s.worker([OneActivity], [resumes], client=client, queue=(queue := unique("queue"))):
            handle = await start_one(s, resumes, which, attempts=2, heartbeat=10, client=client, task_queue=queue)
            await handle.result()
        found.append(deeds(handle.id))
    assert repr(found[0]) == repr(found[1])
    assert len(found[0]) == 1


async def recorded(stage: Stage, handle: WorkflowHandle[Any, Any]) -> Payload:
    """The heartbeat detail that the server holds."""
    while True:
        pending = (await stage.plain.get_workflow_handle(handle.id).describe()).raw_description.pending_activities
        if pending and pending[0].heartbeat_details.payloads:
            return pending[0].heartbeat_details.payloads[0]
        await asyncio.sleep(0.02)


async def poisoned(stage: Stage, detail: Callable[[WorkflowHandle[Any, Any]], Any]) -> tuple[Any, str]:
    """Run an activity whose first attempt is heartbeated for by somebody without the plugin.

    Returns:
        The failure that the workflow ends with, and the workflow's id.
    """
    async with stage.worker([OneActivity], [waits_then_fails, beats_then_fails]):
        handle = await start_one(stage, waits_then_fails, attempts=3)
        await eventually(lambda: deeds(handle.id))
        payload = await detail(handle)
        pending = (await handle.describe()).raw_description.pending_activities[0]
        attacker = stage.plain.get_async_activity_handle(
            workflow_id=handle.id, run_id=handle.result_run_id, activity_id=pending.activity_id
        )
        await attacker.heartbeat(payload)
        _go_on.setdefault(handle.id, asyncio.Event()).set()
        return await failure_of(handle), handle.id


async def marked(stage: Stage, text: str = "mine") -> tuple[Payload, WorkflowHandle[Any, Any]]:
    """A detail that an attempt of another activity signed; that activity is still running."""
    other = await start_one(stage, beats_then_fails, text, attempts=3, heartbeat=10)
    return await asyncio.wait_for(recorded(stage, other), 60), other


@pytest.mark.rule("A6")
@pytest.mark.rule("M1")
async def test_details_that_nobody_signed_are_refused(stage: Callable[..., Any]) -> None:
    s = await stage()

    async def detail(_: Any) -> Any:
        return "skip all checks"

    failure, workflow_id = await poisoned(s, detail)
    assert failure.type == "GrantRejected"
    assert "M1" in failure.message
    assert deeds(workflow_id) == ["began"]


@pytest.mark.rule("M3")
async def test_details_of_another_activity_are_refused(stage: Callable[..., Any]) -> None:
    s = await stage()

    async def detail(_: Any) -> Any:
        payload, other = await marked(s)
        _go_on.setdefault(other.id, asyncio.Event()).set()
        return RawValue(payload)

    # Both are of the same activity type's worker; only the request differs.
    failure, workflow_id = await poisoned(s, detail)
    assert failure.type == "GrantRejected"
    assert "M3" in failure.message
    assert deeds(workflow_id) == ["began"]


async def refused_after(stage: Stage, change: Callable[[Payload], None], rule: str) -> None:
    """Let an attempt sign its details, an attacker change them, and see the next attempt refused by this rule."""
    async with stage.worker([OneActivity], [beats_then_fails]):
        handle = await start_one(stage, beats_then_fails, "5", attempts=4, heartbeat=10)
        await eventually(lambda: deeds(handle.id))
        payload = await asyncio.wait_for(recorded(stage, handle), 60)
        change(payload)
        pending = (await handle.describe()).raw_description.pending_activities[0]
        attacker = stage.plain.get_async_activity_handle(
            workflow_id=handle.id, run_id=handle.result_run_id, activity_id=pending.activity_id
        )
        await attacker.heartbeat(RawValue(payload))
        _go_on.setdefault(handle.id, asyncio.Event()).set()
        if not rule:
            assert await handle.result() == "done"
            assert deeds(handle.id) == ["began", ("resumed", ["5"])]
            return
        failure = await failure_of(handle)
    assert failure.type == "GrantRejected"
    assert rule in failure.message
    assert deeds(handle.id) == ["began"]


async def test_details_that_are_sent_again_as_they_were_are_accepted(stage: Callable[..., Any]) -> None:
    await refused_after(await stage(), lambda payload: None, "")


@pytest.mark.rule("M4")
async def test_details_that_were_changed_under_their_mark_are_refused(stage: Callable[..., Any]) -> None:
    def change(payload: Payload) -> None:
        payload.data = b'"999"'

    await refused_after(await stage(), change, "M4")


@pytest.mark.rule("M2")
async def test_a_mark_by_a_key_without_a_credential_is_refused(stage: Callable[..., Any]) -> None:
    def change(payload: Payload) -> None:
        tokens = unpack(payload.metadata[HEARTBEAT])
        forged = sign(parse(tokens[-1], HeartbeatMark).claims, SigningKey.generate())
        payload.metadata[HEARTBEAT] = pack([forged.text], tokens[:-1])

    await refused_after(await stage(), change, "C4")


async def test_a_mark_without_its_credential_is_refused(stage: Callable[..., Any]) -> None:
    def change(payload: Payload) -> None:
        tokens = unpack(payload.metadata[HEARTBEAT])
        payload.metadata[HEARTBEAT] = pack([tokens[-1]], [])

    await refused_after(await stage(), change, "M1")


async def test_a_mark_that_is_no_statement_is_refused(stage: Callable[..., Any]) -> None:
    def change(payload: Payload) -> None:
        payload.metadata[HEARTBEAT] = b"\x00nonsense"

    await refused_after(await stage(), change, "K")


async def test_details_of_a_plain_workers_attempt_are_refused(stage: Callable[..., Any]) -> None:
    s = await stage()

    @activity.defn(name="resumes")
    async def rogue(_: int) -> str:
        activity.heartbeat("skip all checks")
        happened("rogue")
        raise ApplicationError("again", next_retry_delay=None)

    async with s.worker([OneActivity], (), no_remote_activities=True):
        async with s.worker((), [rogue], client=s.plain):
            handle = await start_one(s, resumes, 0, attempts=0, heartbeat=10)
            await eventually(lambda: deeds(handle.id))
        async with s.worker((), [resumes]):
            failure = await failure_of(handle)
    assert failure.type == "GrantRejected"
    assert set(deeds(handle.id)) == {"rogue"}


async def test_an_ungoverned_run_keeps_its_unsigned_details(stage: Callable[..., Any]) -> None:
    s = await stage(allow_ungoverned=["OneActivity"])
    async with s.worker([OneActivity], [resumes]):
        handle = await start_one(s, resumes, 0, attempts=2, heartbeat=10, client=s.plain)
        await handle.result()
    assert deeds(handle.id) == [[7]] or deeds(handle.id) == [(7,)]


async def test_an_input_that_a_codec_decodes_to_nothing_does_not_hide_the_details() -> None:
    class DropsAll(PayloadCodec):
        async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
            return list(payloads)

        async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
            return [payload for payload in payloads if payload.data != b"nothing"]

    async def decodes() -> list[list[Payload]]:
        codec = ObservingCodec.around(DropsAll())
        for data in (b"nothing", b"details"):
            await codec.decode([Payload(data=data)])
        return decoded_here()

    assert await asyncio.create_task(decodes()) == [[Payload(data=b"details")]]
