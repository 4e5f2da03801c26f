"""Activities that a client completes from outside: Cedar says whether it may, and its receipt says that it did."""

import asyncio
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity, workflow
from temporalio.api.common.v1 import Payload
from temporalio.client import (
    ActivityFailureError,
    AsyncActivityCancelledError,
    AsyncActivityHandle,
    Client,
    WorkflowHandle,
)
from temporalio.converter import DataConverter, PayloadCodec
from temporalio.exceptions import ActivityError, ApplicationError, CancelledError
from temporalio.service import RPCError

from exequatur import AuthorizationPlugin, Principal, Settings, acting_as
from exequatur.failures import AuthorizationDenied, AuthorizationRevoked, GrantRejected
from exequatur.gate.wire import HEARTBEAT, RECEIPT
from exequatur.statements.encoding import strict_json
from exequatur.statements.jws import parse
from exequatur.statements.models import HeartbeatMark, Receipt
from exequatur.statements.packing import unpack
from tests.gate.conftest import BOT, PERMIT_ALL, Stage, failure_of, unique
from tests.gate.single import OneActivity, eventually, start_one

DANA = Principal("User", "dana")

_infos: dict[str, list[activity.Info]] = defaultdict(list)
"""Of the attempts that left, by workflow or activity id."""


@activity.defn
async def leaves(_: str) -> str | None:
    """Is completed from outside."""
    info = activity.info()
    _infos[info.workflow_id or info.activity_id].append(info)
    activity.raise_complete_async()


@activity.defn
async def leaves_once() -> list[Any]:
    """Its first attempt is completed from outside; its second one gives the heartbeat details that it finds."""
    info = activity.info()
    _infos[info.workflow_id or info.activity_id].append(info)
    if info.attempt == 1:
        activity.raise_complete_async()
    return list(info.heartbeat_details)


@workflow.defn
class Cancels:
    """Cancels its activity and says with what it ended."""

    @workflow.run
    async def run(self) -> list[Any]:
        handle = workflow.start_activity(
            leaves,
            "",
            start_to_close_timeout=timedelta(seconds=30),
            cancellation_type=workflow.ActivityCancellationType.WAIT_CANCELLATION_COMPLETED,
        )
        await workflow.sleep(0.1)
        handle.cancel()
        try:
            await handle
        except ActivityError as err:
            return list(err.cause.details) if isinstance(err.cause, CancelledError) else []
        return []


@workflow.defn
class Both:
    """Gives the results of two activities at once."""

    @workflow.run
    async def run(self) -> list[Any]:
        timeout = timedelta(seconds=20)
        return await asyncio.gather(
            *(
                workflow.execute_activity(leaves, "", activity_id=each, start_to_close_timeout=timeout)
                for each in ("one", "other")
            )
        )


async def left(name: str, attempt: int = 1) -> activity.Info:
    """The attempt that is to be completed."""
    await eventually(lambda: len(_infos[name]) >= attempt)
    return _infos[name][attempt - 1]


def by_ids(client: Client, info: activity.Info, **changes: Any) -> AsyncActivityHandle:
    named = {"workflow_id": info.workflow_id, "run_id": info.workflow_run_id, "activity_id": info.activity_id}
    return client.get_async_activity_handle(**named | changes)


def by_token(client: Client, info: activity.Info) -> AsyncActivityHandle:
    return client.get_async_activity_handle(task_token=info.task_token)


NAMED = pytest.mark.parametrize("named", [by_ids, by_token], ids=["ids", "token"])
Naming = Callable[[Client, activity.Info], AsyncActivityHandle]


async def result_of(handle: WorkflowHandle[Any, Any]) -> tuple[Payload, Receipt]:
    """The payload of a run's only activity, and the receipt on it."""
    history = await handle.fetch_history()
    [payload] = next(
        event.activity_task_completed_event_attributes.result.payloads
        for event in history.events
        if event.HasField("activity_task_completed_event_attributes")
    )
    return payload, parse(unpack(payload.metadata[RECEIPT])[-1], Receipt).claims


def asked(s: Stage, action: str = "activity.complete") -> list[Any]:
    """What the authority recorded."""
    bodies = [strict_json(each.body) for each in s.records("authority")]
    return [body for body in bodies if isinstance(body, dict) and body.get("action") == action]


@NAMED
@pytest.mark.rule("completions.L3")
async def test_a_result_is_accepted_and_names_who_completed_it(stage: Callable[..., Any], named: Naming) -> None:
    s = await stage()
    async with s.worker([OneActivity], [leaves]):
        handle = await start_one(s, leaves, "")
        info = await left(handle.id)
        with acting_as(DANA):
            await named(s.client, info).complete({"said": "yes"})
        assert await handle.result() == {"said": "yes"}
    _, receipt = await result_of(handle)
    assert receipt.completed_by == 'User::"dana"'
    assert receipt.outcome == "completed"
    assert (receipt.run_id, receipt.activity_id, receipt.attempt) == (info.workflow_run_id, info.activity_id, 1)
    assert receipt.policies == ("all",)
    [record] = asked(s)
    assert record["principal"] == 'User::"dana"'
    assert record["outcome"] == "completed"
    assert record["request"] == receipt.request
    assert record["result"] == receipt.result
    assert record["run_id"] == info.workflow_run_id


@pytest.mark.parametrize("result", [None, "text", b"\x00", [1, {"x": None}]], ids=repr)
async def test_a_result_arrives_as_it_was_given(stage: Callable[..., Any], result: Any) -> None:
    s = await stage()
    found = []
    for client in (s.client, s.plain):
        async with s.worker([OneActivity], [leaves], client=client, queue=(queue := unique("queue"))):
            handle = await start_one(s, leaves, "", client=client, task_queue=queue)
            await by_ids(client, await left(handle.id)).complete(result)
            found.append(await handle.result())
    assert repr(found[0]) == repr(found[1])


@NAMED
async def test_an_activity_that_is_completed_with_nothing_gives_nothing(
    stage: Callable[..., Any], named: Naming
) -> None:
    s = await stage()
    async with s.worker([OneActivity], [leaves]):
        handle = await start_one(s, leaves, "")
        await named(s.client, await left(handle.id)).complete()
        assert await handle.result() is None


async def test_a_result_by_a_client_without_the_plugin_is_refused(stage: Callable[..., Any]) -> None:
    s = await stage()
    async with s.worker([OneActivity], [leaves]):
        handle = await start_one(s, leaves, "")
        await by_ids(s.plain, await left(handle.id)).complete("yes")
        assert (await failure_of(handle)).type == "ReceiptRejected"


@NAMED
@pytest.mark.rule("completions.L1")
async def test_nothing_is_told_to_the_server_that_cedar_does_not_allow(
    stage: Callable[..., Any], named: Naming
) -> None:
    s = await stage(
        PERMIT_ALL
        + '@id("own") @reason("not yours") forbid(principal == User::"dana", action == Action::"activity.complete",'
        ' resource) when { context.activity.type == "leaves" && context.activity.task_queue != "" };'
    )
    async with s.worker([OneActivity], [leaves]):
        handle = await start_one(s, leaves, "")
        info = await left(handle.id)
        outside = named(s.client, info)
        with acting_as(DANA):
            for report in (
                lambda: outside.complete("yes"),
                lambda: outside.fail(ApplicationError("no")),
                outside.report_cancellation,
                lambda: outside.heartbeat("here"),
            ):
                with pytest.raises(AuthorizationDenied, match="not yours"):
                    await report()
        [pending] = (await handle.describe()).raw_description.pending_activities
        assert not pending.heartbeat_details.payloads
        await outside.complete("by the bot")
        assert await handle.result() == "by the bot"
    assert [each["decision"] for each in asked(s)] == ["deny"] * 4 + ["allow"]


async def test_what_the_policies_are_told(stage: Callable[..., Any]) -> None:
    s = await stage()
    async with s.worker([OneActivity], [leaves]):
        handle = await start_one(s, leaves, "")
        info = await left(handle.id)
        s.write(
            f"""permit(principal, action == Action::"activity.complete", resource == Workflow::"{handle.id}")
            when {{ context.run.workflow_id == "{handle.id}" && context.run.namespace == "default"
                    && context.activity.type == "leaves" && context.activity.id == "{info.activity_id}"
                    && context.activity.task_queue == "{s.queue}" }};"""
        )
        await eventually(lambda: s.plugin.gate.epoch > 1)
        await by_token(s.client, info).complete("yes")
        assert await handle.result() == "yes"


@NAMED
async def test_a_failure_from_outside_is_the_one_that_was_given_and_heartbeats_reach_the_next_attempt(
    stage: Callable[..., Any], named: Naming
) -> None:
    s = await stage()
    async with s.worker([OneActivity], [leaves_once, leaves]):
        handle = await start_one(s, leaves_once, attempts=2, heartbeat=20)
        outside = named(s.client, await left(handle.id))
        await outside.heartbeat("an older one")
        await outside.heartbeat("so far", 2)
        await outside.fail(ApplicationError("again"))
        assert await handle.result() == ["so far", 2]
        handle = await start_one(s, leaves, "")
        await named(s.client, await left(handle.id)).fail(ApplicationError("no", 7, type="Mine"))
        failure = await failure_of(handle)
    assert (failure.type, failure.details) == ("Mine", (7,))
    failed = [each for each in s.statements("receipt", Receipt) if each.outcome == "failed"]
    assert [each.completed_by for each in failed] == [str(BOT)] * 2


async def test_last_details_of_a_failure_reach_the_next_attempt(stage: Callable[..., Any]) -> None:
    s = await stage()
    async with s.worker([OneActivity], [leaves_once]):
        handle = await start_one(s, leaves_once, attempts=2, heartbeat=20)
        outside = by_token(s.client, await left(handle.id))
        await outside.fail(ApplicationError("again"), last_heartbeat_details=["at last"])
        assert await handle.result() == ["at last"]


@pytest.mark.rule("completions.L3")
async def test_heartbeat_details_from_outside_are_marked_for_the_attempt(stage: Callable[..., Any]) -> None:
    s = await stage()
    async with s.worker([OneActivity], [leaves]):
        handle = await start_one(s, leaves, "", heartbeat=20)
        info = await left(handle.id)
        outside = by_ids(s.client, info)
        await outside.heartbeat()
        await outside.heartbeat("here", 1)
        [pending] = (await handle.describe()).raw_description.pending_activities
        await outside.complete("yes")
        await handle.result()
    mark = parse(unpack(pending.heartbeat_details.payloads[0].metadata[HEARTBEAT])[-1], HeartbeatMark).claims
    assert (mark.run_id, mark.attempt) == (info.workflow_run_id, 1)


async def test_heartbeats_are_asked_about_again_only_after_a_while_or_a_change(stage: Callable[..., Any]) -> None:
    s = await stage(recheck_interval=timedelta(minutes=1))
    async with s.worker([OneActivity], [leaves]):
        handle = await start_one(s, leaves, "", heartbeat=20)
        outside = by_ids(s.client, await left(handle.id))
        for _ in range(3):
            await outside.heartbeat("here")
        assert len(asked(s)) == 1
        epoch = s.plugin.gate.epoch
        s.write(PERMIT_ALL + 'forbid(principal, action == Action::"activity.complete", resource);')
        await eventually(lambda: s.plugin.gate.epoch > epoch)
        with pytest.raises(AuthorizationDenied):
            await outside.heartbeat("here")
        await handle.terminate()


async def test_a_heartbeat_by_ids_reaches_the_run_that_is_there_now(stage: Callable[..., Any]) -> None:
    s = await stage(recheck_interval=timedelta(minutes=1))
    async with s.worker([OneActivity], [leaves]):
        handle = await start_one(s, leaves, "", heartbeat=20)
        outside = by_ids(s.client, await left(handle.id), run_id=None)
        await outside.heartbeat("here")
        await handle.terminate()
        handle = await start_one(s, leaves, "", heartbeat=20, id=handle.id)
        await left(handle.id, 2)
        await outside.heartbeat("here")
        [pending] = (await handle.describe()).raw_description.pending_activities
        assert pending.heartbeat_details.payloads
        await handle.terminate()
        with pytest.raises(RPCError):
            await outside.heartbeat("nowhere")


async def test_however_many_policies_allow_it_the_receipt_has_room(stage: Callable[..., Any]) -> None:
    s = await stage(
        PERMIT_ALL
        + "".join(
            f'@id("{chr(97 + n) * 900}") permit(principal, action == Action::"activity.complete", resource);'
            for n in range(16)
        )
    )
    async with s.worker([OneActivity], [leaves]):
        handle = await start_one(s, leaves, "")
        await by_ids(s.client, await left(handle.id)).complete("yes")
        assert await handle.result() == "yes"


@NAMED
async def test_a_cancellation_from_outside(stage: Callable[..., Any], named: Naming) -> None:
    s = await stage()
    async with s.worker([Cancels], [leaves]):
        handle = await s.start(Cancels.run)
        outside = named(s.client, await left(handle.id))
        with pytest.raises(AsyncActivityCancelledError):
            while True:
                await outside.heartbeat()
                await asyncio.sleep(0.02)
        await outside.report_cancellation("stopped", 1)
        assert await handle.result() == ["stopped", 1]


@pytest.mark.rule("completions.L4")
async def test_without_a_run_id_it_is_the_run_that_is_there(stage: Callable[..., Any]) -> None:
    s = await stage()
    async with s.worker([OneActivity], [leaves]):
        handle = await start_one(s, leaves, "")
        outside = by_ids(s.client, await left(handle.id), run_id=None)
        sent = []
        send = s.client.workflow_service._client._rpc_call

        async def watched(rpc: str, req: Any, *args: Any, **options: Any) -> Any:
            sent.append((rpc, getattr(req, "run_id", None)))
            return await send(rpc, req, *args, **options)

        s.client.workflow_service._client._rpc_call = watched
        await outside.complete("yes")
        assert await handle.result() == "yes"
    # Between looking and telling, the workflow may have gone on in another run, whose activity has the same id.
    assert ("respond_activity_task_completed_by_id", handle.result_run_id) in sent
    assert (await result_of(handle))[1].run_id == handle.result_run_id


@pytest.mark.rule("completions.L2")
@pytest.mark.parametrize("revoked", [str(BOT), 'Service::"desk"'])
async def test_what_was_revoked_is_not_completed_nor_kept_alive(stage: Callable[..., Any], revoked: str) -> None:
    s = await stage()
    async with s.worker([OneActivity], [leaves]):
        with acting_as(BOT, through=['Service::"desk"']):
            handle = await start_one(s, leaves, "", heartbeat=30)
        info = await left(handle.id)
        s.plugin.revoke(principal=revoked, reason="gone")
        with acting_as(DANA):
            for report in (
                lambda: by_ids(s.client, info).complete("yes"),
                lambda: by_token(s.client, info).heartbeat(),
            ):
                with pytest.raises(AuthorizationRevoked, match="gone"):
                    await report()
            # It may be ended.
            await by_token(s.client, info).fail(ApplicationError("revoked meanwhile"))
        assert (await failure_of(handle)).message.endswith("revoked meanwhile")


@pytest.mark.rule("completions.L2")
async def test_what_was_started_by_itself_through_somebody_who_is_revoked_is_not_completed(
    stage: Callable[..., Any],
) -> None:
    s = await stage()
    async with s.worker((), [leaves]):
        with acting_as(BOT, through=['Service::"desk"']):
            handle = await s.client.start_activity(
                leaves, "", id=unique("a"), task_queue=s.queue, start_to_close_timeout=timedelta(seconds=20)
            )
        info = await left(handle.id)
        s.plugin.revoke(principal='Service::"desk"', reason="gone")
        with acting_as(DANA), pytest.raises(AuthorizationRevoked, match="gone"):
            await by_token(s.client, info).complete("yes")
        await handle.terminate()


@pytest.mark.rule("completions.L2")
async def test_the_result_of_a_run_beyond_its_lifetime_is_refused(stage: Callable[..., Any]) -> None:
    lifetime = timedelta(minutes=10)
    s = await stage(grant_ttl=lifetime, start_within=lifetime, max_lifetime=lifetime)
    async with s.worker([OneActivity], [leaves]):
        handle = await start_one(s, leaves, "")
        info = await left(handle.id)
        s.plugin.gate.clock = lambda: time.time() + lifetime.total_seconds() + 1
        with pytest.raises(GrantRejected, match="has ended"):
            await by_ids(s.client, info).complete("yes")
        await handle.terminate()


async def test_an_ungoverned_activity_is_completed_without_a_receipt(stage: Callable[..., Any]) -> None:
    s = await stage(allow_ungoverned=["OneActivity"])
    async with s.worker([OneActivity], [leaves]):
        handle = await start_one(s, leaves, "", client=s.plain)
        await by_ids(s.client, await left(handle.id)).complete("yes")
        assert await handle.result() == "yes"
    assert [each["decision"] for each in asked(s)] == ["allow"]


@pytest.mark.parametrize("attempt", range(2))
async def test_what_is_not_pending_is_refused_by_the_server_as_without_the_plugin(
    stage: Callable[..., Any], attempt: int
) -> None:
    s = await stage()
    names = {"workflow_id": unique(), "run_id": None, "activity_id": "1"} if attempt else {"activity_id": unique("a")}
    errors = []
    for client in (s.client, s.plain):
        with pytest.raises(RPCError) as raised:
            await client.get_async_activity_handle(**names).complete("yes")
        errors.append(raised.value.status)
    assert errors[0] == errors[1]


async def test_a_second_completion_is_refused_by_the_server(stage: Callable[..., Any]) -> None:
    s = await stage()
    async with s.worker([OneActivity], [leaves]):
        handle = await start_one(s, leaves, "")
        info = await left(handle.id)
        await by_ids(s.client, info).complete("yes")
        with pytest.raises(RPCError):
            await by_token(s.client, info).complete("no")
        assert await handle.result() == "yes"


@pytest.mark.rule("pending.N1")
@pytest.mark.parametrize(
    "token",
    [
        b"",
        b"\x00nonsense",
        b"\x0a\x01x",
        b"\x32\x01" * 40_000,
        b"\x12\x01w\x1a\x01r",
        b"\x12\x01w\x32\x01a",
        b"\x12\x01w\x1a\x01r\x32\x01a\x28" + b"\xff" * 9 + b"\x01",
    ],
    ids=len,
)
async def test_a_token_that_names_no_activity_is_refused(stage: Callable[..., Any], token: bytes) -> None:
    s = await stage()
    with pytest.raises(GrantRejected, match="use workflow_id"):
        await s.client.get_async_activity_handle(task_token=token or b"\xff").complete("yes")


def fields_of(token: bytes) -> list[tuple[int, Any]]:
    """The fields of a protobuf message that holds numbers below 128 and texts."""
    found: list[tuple[int, Any]] = []
    at = 0
    while at < len(token):
        tag, value, at = token[at], token[at + 1], at + 2
        if tag & 7:
            found.append((tag >> 3, token[at : at + value]))
            at += value
        else:
            while value > 127 and token[at] > 127:
                at += 1
            at += value > 127
            found.append((tag >> 3, value))
    return found


def message_of(fields: list[tuple[int, Any]]) -> bytes:
    return b"".join(
        bytes([number << 3, value]) if isinstance(value, int) else bytes([number << 3 | 2, len(value)]) + value
        for number, value in fields
    )


@pytest.mark.rule("pending.N3")
@pytest.mark.rule("completions.L5")
@pytest.mark.parametrize("name", ["ghost", "other", None], ids=str)
async def test_a_token_put_together_from_two_ends_neither_activity(stage: Callable[..., Any], name: str | None) -> None:
    s = await stage(
        PERMIT_ALL + 'forbid(principal == User::"dana", action == Action::"activity.complete", resource)'
        ' unless { ["ghost", "other"].contains(context.activity.id) };'
    )
    async with s.worker([Both], [leaves]):
        handle = await s.start(Both.run)
        await left(handle.id, 2)
        one = next(each for each in _infos[handle.id] if each.activity_id == "one")
        two = next(each for each in _infos[handle.id] if each.activity_id == "other")
        # By its ids it is of an activity that she may report on, and by its event of another. The last has both of an
        # activity of a workflow and of one that stands by itself.
        forged = {6: (name or "other").encode()} | ({14: b"\x12\x03one"} if name is None else {})
        fields = dict(fields_of((two if name is None else one).task_token)) | forged
        assert dict(fields_of(one.task_token))[4] != dict(fields_of(two.task_token))[4]
        outside = s.client.get_async_activity_handle(task_token=message_of(sorted(fields.items())))
        with acting_as(DANA):
            for report in (
                lambda: outside.complete("hers"),
                lambda: outside.fail(ApplicationError("hers")),
                outside.report_cancellation,
                outside.heartbeat,
            ):
                with pytest.raises(RPCError if name == "ghost" else GrantRejected):
                    await report()
        await by_ids(s.client, one).complete("one")
        await by_ids(s.client, two).complete("two")
        assert await handle.result() == ["one", "two"]


@pytest.mark.rule("pending.N3")
async def test_a_token_of_an_activity_that_stands_by_itself_names_it_once(stage: Callable[..., Any]) -> None:
    mine = unique("mine")
    s = await stage(
        PERMIT_ALL + 'forbid(principal == User::"dana", action == Action::"activity.complete", resource)'
        f' unless {{ resource == Workflow::"standalone/{mine}" }};'
    )
    async with s.worker((), [leaves]):
        handle = await s.client.start_activity(
            leaves, "", id=unique("a"), task_queue=s.queue, start_to_close_timeout=timedelta(seconds=20)
        )
        info = await left(handle.id)
        fields = dict(fields_of(info.task_token))
        for changes in ({6: mine.encode()}, {1: b"another"}):
            outside = s.client.get_async_activity_handle(task_token=message_of(sorted((fields | changes).items())))
            with acting_as(DANA), pytest.raises(GrantRejected, match="two activities"):
                await outside.fail(ApplicationError("hers"))
        await by_token(s.client, info).complete("yes")
        assert await handle.result() == "yes"


class Reverses(PayloadCodec):
    async def encode(self, payloads: Any) -> list[Payload]:
        return [Payload(metadata={"encoding": b"reversed"}, data=each.SerializeToString()[::-1]) for each in payloads]

    async def decode(self, payloads: Any) -> list[Payload]:
        return [
            Payload.FromString(each.data[::-1]) if each.metadata.get("encoding") == b"reversed" else each
            for each in payloads
        ]


@NAMED
async def test_headers_and_results_that_a_codec_hides(stage: Callable[..., Any], named: Naming) -> None:
    s = await stage(client_options={"data_converter": DataConverter(payload_codec=Reverses())})
    async with s.worker([OneActivity], [leaves]):
        handle = await start_one(s, leaves, "", heartbeat=20)
        outside = named(s.client, await left(handle.id))
        await outside.heartbeat("here")
        await outside.complete("yes")
        assert await handle.result() == "yes"
        assert await complete_alone(s, lambda info: by_token(s.client, info)) == "yes"
    history = await handle.fetch_history()
    completed = [e for e in history.events if e.HasField("activity_task_completed_event_attributes")]
    [payload] = completed[0].activity_task_completed_event_attributes.result.payloads
    assert payload.metadata["encoding"] == b"reversed"
    assert RECEIPT not in payload.metadata


async def complete_alone(s: Stage, named: Callable[[activity.Info], AsyncActivityHandle]) -> Any:
    handle = await s.client.start_activity(
        leaves, "", id=unique("a"), task_queue=s.queue, start_to_close_timeout=timedelta(seconds=20)
    )
    outside = named(await left(handle.id))
    await outside.heartbeat("here")
    await outside.complete("yes")
    return await handle.result()


async def test_an_activity_that_stands_by_itself(stage: Callable[..., Any]) -> None:
    s = await stage()

    async def rejected(client: Client) -> ApplicationError:
        with pytest.raises(ActivityFailureError) as raised:
            await complete_alone(s, lambda info: client.get_async_activity_handle(activity_id=info.activity_id))
        assert isinstance(raised.value.cause, ApplicationError)
        return raised.value.cause

    def of_run(info: activity.Info) -> AsyncActivityHandle:
        return s.client.get_async_activity_handle(activity_id=info.activity_id, run_id=info.activity_run_id)

    async with s.worker((), [leaves]):
        assert await complete_alone(s, lambda info: by_token(s.client, info)) == "yes"
        assert await complete_alone(s, of_run) == "yes"
        assert (await rejected(s.plain)).type == "ReceiptRejected"
    records = asked(s)
    assert all(each["workflow_id"].startswith("standalone/") for each in records)


async def test_another_plugin_with_the_same_state_folder_completes_it(stage: Callable[..., Any]) -> None:
    s = await stage()
    other = AuthorizationPlugin.embedded(s.policies, state_dir=s.state, principal=DANA, settings=Settings())
    client = await s.connect(other)
    async with s.worker([OneActivity], [leaves]):
        for named in (by_ids, by_token):
            handle = await start_one(s, leaves, "")
            await named(client, await left(handle.id)).complete("from afar")
            assert await handle.result() == "from afar"
    _, receipt = await result_of(handle)
    assert receipt.completed_by == 'User::"dana"'
    assert {each["decision"] for each in asked(s)} == {"allow"}


@pytest.mark.rule("pending.N2")
@pytest.mark.rule("completions.L2")
async def test_a_plugin_with_another_authority_cannot(stage: Callable[..., Any], tmp_path: Path) -> None:
    s = await stage()
    other = AuthorizationPlugin.embedded(s.policies, state_dir=tmp_path / "other", principal=DANA, settings=Settings())
    client = await s.connect(other)
    async with s.worker([OneActivity], [leaves]):
        handle = await start_one(s, leaves, "")
        with pytest.raises(GrantRejected, match="not covered by its grant"):
            await by_ids(client, await left(handle.id)).complete("from a stranger")
        await handle.terminate()


_ELSEWHERE = """
import asyncio, sys
from temporalio.client import Client
from exequatur import AuthorizationPlugin, Principal, Settings

async def main(target, policies, state, token):
    plugin = AuthorizationPlugin.embedded(policies, state_dir=state, principal=Principal("User", "dana"),
                                          settings=Settings())
    client = await Client.connect(target, plugins=[plugin])
    await client.get_async_activity_handle(task_token=bytes.fromhex(token)).complete("from another process")

asyncio.run(main(*sys.argv[1:]))
"""


async def test_another_process_with_the_same_state_folder_completes_it(stage: Callable[..., Any]) -> None:
    s = await stage()
    async with s.worker([OneActivity], [leaves]):
        handle = await start_one(s, leaves, "")
        info = await left(handle.id)
        told = [s.target, str(s.policies), str(s.state), info.task_token.hex()]
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", _ELSEWHERE, *told], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        assert await handle.result() == "from another process"
    assert [(each["principal"], each["decision"]) for each in asked(s)] == [('User::"dana"', "allow")]
