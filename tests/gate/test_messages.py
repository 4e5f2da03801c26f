"""Signals, queries and updates of clients: each needs a permit for exactly this one.

A refusal is proven by the workflow's own state: what it did not note did not reach its handler.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from temporalio.api.common.v1 import Payload, WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import ResetWorkflowExecutionRequest
from temporalio.client import (
    WithStartWorkflowOperation,
    WorkflowHandle,
    WorkflowQueryFailedError,
    WorkflowUpdateFailedError,
)
from temporalio.common import WorkflowIDConflictPolicy

from exequatur import Principal, acting_as
from exequatur.failures import AuthorizationDenied
from exequatur.gate import incoming
from exequatur.gate.wire import ACTIVITY_HEADER, MESSAGE_HEADER
from exequatur.statements.approvals import APPROVAL_SIGNAL
from exequatur.statements.keys import SigningKey
from exequatur.statements.models import MessageKind, Permit
from exequatur.statements.trust import Anchor
from tests.gate.boxes import (
    WORKFLOWS,
    Again,
    Box,
    Busy,
    Dynamic,
    Late,
    Posing,
    Strict,
    carried,
    go_on,
    note,
    permit,
    records,
    refusals,
    refused,
    replays,
    with_headers,
)
from tests.gate.conftest import PERMIT_ALL, Stage, events, headed, unique

Headers = dict[str, Payload]


# What may pass.


async def test_a_permitted_message_does_what_it_does_without_the_gate(stage):
    async def through(s: Stage, client: Any) -> list[Any]:
        h = await s.start(Box.run, client=client)
        await h.signal(Box.put, "one")
        seen = [await h.query(Box.count), await h.execute_update(Box.swap, "two")]
        update = await h.start_update(Box.checked, "three", wait_for_stage=2, id="update-1")
        seen += [update.id, await update.result()]
        for name, text in (("checked", "bad"), ("unknown", "text")):
            with pytest.raises(WorkflowUpdateFailedError) as raised:
                await h.execute_update(name, text)
            seen.append(repr(raised.value.cause))
        with pytest.raises(WorkflowQueryFailedError) as query:
            await h.query("unknown")
        seen.append(str(query.value))
        await h.signal("unknown", "nobody listens")
        await h.signal(Box.close)
        return [*seen, await h.result()]

    s = await stage()
    plain = await stage()
    async with s.worker(WORKFLOWS, [note]), plain.worker(WORKFLOWS, [note], client=plain.plain):
        assert await through(s, s.client) == await through(plain, plain.plain)


async def test_every_message_is_in_the_evidence_with_the_principal_that_sent_it(stage):
    s = await stage()
    async with s.worker(WORKFLOWS, [note]):
        h = await s.start(Box.run)
        with acting_as(Principal("User", "dana")):
            await h.signal(Box.put, "one")
            await h.query(Box.count)
        await h.execute_update(Box.swap, "two")
        await h.signal(Box.close)
        await h.result()
    told = [(body["kind"], body["name"], body["principal"]) for body in records(s, h)]
    assert told == [
        ("signal", "put", 'User::"dana"'),
        ("query", "count", 'User::"dana"'),
        ("update", "swap", 'Agent::"ops-bot"'),
        ("signal", "close", 'Agent::"ops-bot"'),
    ]
    decided = [json.loads(record.body) for record in s.records("authority")]
    permits = {body["permit"] for body in decided if "permit" in body}
    assert {body["statement"] for body in records(s, h)} == permits


async def test_what_cedar_does_not_allow_does_not_leave_the_client(stage):
    s = await stage(PERMIT_ALL + '@id("calm") forbid(principal, action == Action::"workflow.signal", resource);')
    async with s.worker(WORKFLOWS, [note]):
        h = await s.start(Box.run)
        with pytest.raises(AuthorizationDenied, match="policy calm"):
            await h.signal(Box.put, "one")
        assert await h.query(Box.count) == 0
        assert await h.execute_update(Box.swap, "two") == ["two"]
        with pytest.raises(AuthorizationDenied, match="policy calm"):
            await s.start(Box.run, start_signal="put", start_signal_args=["three"])


async def test_policies_see_the_name_of_the_message_and_the_workflow(stage):
    s = await stage(
        '@id("some") permit(principal, action, resource) unless { context has message && '
        '(context.message.name != "put" || context.message.sender != "" || resource != Workflow::"box-1") };'
    )
    async with s.worker(WORKFLOWS, [note]):
        h = s.client.get_workflow_handle("box-1")
        with pytest.raises(AuthorizationDenied):
            await h.signal("close")
        with pytest.raises(AuthorizationDenied):
            await s.client.get_workflow_handle("box-2").signal("put", "one")
        with pytest.raises(Exception, match="not found"):
            await h.signal("put", "one")


# What must not.


async def nothing(s: Stage, id: str, kind: MessageKind, name: str, *args: Any) -> Headers:
    return {}


def claiming(**changes: Any) -> Callable[..., Awaitable[Headers]]:
    """A permit that says something else, signed by the authority."""

    async def make(s: Stage, id: str, kind: MessageKind, name: str, *args: Any) -> Headers:
        return carried(await permit(s, kind, id, name, *args, **changes))

    return make


async def another_kind(s: Stage, id: str, kind: MessageKind, name: str, *args: Any) -> Headers:
    return carried(await permit(s, "query" if kind != "query" else "signal", id, name, *args))


async def other_arguments(s: Stage, id: str, kind: MessageKind, name: str, *args: Any) -> Headers:
    return carried(await permit(s, kind, id, name, "other"))


async def tampered(s: Stage, id: str, kind: MessageKind, name: str, *args: Any) -> Headers:
    good = (await permit(s, kind, id, "close", *args)).text.split(".")
    bad = (await permit(s, kind, id, name, *args)).text.split(".")
    return carried(".".join([bad[0], bad[1], good[2]]))


def signed_with(role: str) -> Callable[..., Awaitable[Headers]]:
    async def make(s: Stage, id: str, kind: MessageKind, name: str, *args: Any) -> Headers:
        issuer: Any = s.plugin._authority
        key = SigningKey.generate() if role == "nobody" else issuer._state.signer(role)
        return carried(await permit(s, kind, id, name, *args, signer=key))

    return make


async def a_grant(s: Stage, id: str, kind: MessageKind, name: str, *args: Any) -> Headers:
    return carried(await s.grant("Box", id))


async def two_permits(s: Stage, id: str, kind: MessageKind, name: str, *args: Any) -> Headers:
    one = await permit(s, kind, id, name, *args)
    return carried(one, one)


async def too_large(s: Stage, id: str, kind: MessageKind, name: str, *args: Any) -> Headers:
    return carried(await permit(s, kind, id, name, *args), "x" * 70_000)


async def with_another_header(s: Stage, id: str, kind: MessageKind, name: str, *args: Any) -> Headers:
    good = carried(await permit(s, kind, id, name, *args))
    return {**good, ACTIVITY_HEADER: good[MESSAGE_HEADER]}


async def from_before(s: Stage, id: str, kind: MessageKind, name: str, *args: Any) -> Headers:
    return carried(await permit(s, kind, id, name, *args, iat=time.time() - 120))


def written(data: bytes) -> Callable[..., Awaitable[Headers]]:
    async def make(s: Stage, id: str, kind: MessageKind, name: str, *args: Any) -> Headers:
        return {MESSAGE_HEADER: Payload(metadata={"encoding": b"json/plain"}, data=data)}

    return make


FLAWS = {
    "missing": (nothing, "M11"),
    "expired": (claiming(exp=1_767_225_700.0), "M17"),
    "of another workflow": (claiming(target="another"), "M14"),
    "of another run": (claiming(run_id="another"), "M23"),
    "of another namespace": (claiming(aud="exequatur.local/default/another"), "M12"),
    "of another trust domain": (claiming(aud="another/default/default"), "M12"),
    "from before the run": (from_before, "M49"),
    "of another name": (claiming(name="another"), "M15"),
    "of another kind": (another_kind, "M13"),
    "for other arguments": (other_arguments, "M16"),
    "tampered": (tampered, "V7"),
    "by an unknown key": (signed_with("nobody"), "T1"),
    "by the grant key": (signed_with("grant"), "T2"),
    "a grant": (a_grant, "M11"),
    "two permits": (two_permits, "M11"),
    "too large": (too_large, "H2"),
    "with another header": (with_another_header, "H1"),
    "an empty text": (written(b'""'), "V2"),
    "not a text": (written(b'{"a":1}'), "H3"),
    "not JSON": (written(b"\xff\xfe"), "H3"),
    "deeply nested": (written(b"[" * 60_000), "H3"),
}


@pytest.mark.rule("M50")
async def test_queries_that_are_refused_do_not_fill_the_disk(stage, monkeypatch):
    monkeypatch.setattr(incoming, "_QUERIES_RECORDED", 3)
    s = await stage()
    async with s.worker(WORKFLOWS, [note]):
        h = await s.start(Box.run)
        stranger = s.plain.get_workflow_handle(h.id)
        for _ in range(5):
            assert "[M11]" in await refused(stranger.query("count"))
        await h.signal(Box.close)
        await h.result()
    assert [kind for kind, _ in refusals(s, h)] == ["query"] * 3


@pytest.mark.rule("M11", "M43", "M45", "M49")
@pytest.mark.parametrize("flaw", FLAWS)
async def test_no_message_without_its_permit_reaches_a_handler(stage, flaw):
    make, rule = FLAWS[flaw]
    s = await stage()
    async with s.worker(WORKFLOWS, [note]):
        h = await s.start(Box.run)

        async def sender(kind: MessageKind, name: str, *args: Any) -> WorkflowHandle[Any, Any]:
            return await with_headers(s, h, await make(s, h.id, kind, name, *args))

        await (await sender("signal", "put", "evil")).signal("put", "evil")
        if flaw != "for other arguments":
            assert f"[{rule}]" in await refused((await sender("query", "count")).query("count"))
        assert f"[{rule}]" in await refused((await sender("update", "swap", "evil")).execute_update("swap", "evil"))
        assert f"[{rule}]" in await refused(
            (await sender("update", "checked", "evil")).execute_update("checked", "evil")
        )
        # The run goes on as if nothing had happened.
        assert await h.query(Box.count) == 0
        await h.signal(Box.put, "good")
        await h.signal(Box.close)
        assert await h.result() == ["good"]
    assert set(refusals(s, h)) >= {("signal", rule), ("update", rule)}
    await replays(s, h)


async def test_refusals_replay_when_nothing_is_kept_between_tasks(stage):
    s = await stage()
    async with s.worker(WORKFLOWS, [note], max_cached_workflows=0):
        h = await s.start(Busy.run)
        stranger = await with_headers(s, h, carried(await permit(s, "signal", h.id, "put", "evil", run_id="another")))
        unknown = signed_with("nobody")
        nobody = await with_headers(s, h, await unknown(s, h.id, "signal", "put", "evil"))
        for text in ("one", "two"):
            await stranger.signal("put", "evil")
            await nobody.signal("put", "evil")
            await s.plain.get_workflow_handle(h.id).signal("put", "evil")
            await h.signal(Busy.put, text)
            await refused(nobody.execute_update("swap", "evil"))
        await h.signal(Busy.close)
        assert await h.result() == ["one", "two"]
    await replays(s, h)


@pytest.mark.rule("M44")
async def test_a_permit_is_good_once_in_a_run(stage):
    s = await stage()
    async with s.worker(WORKFLOWS, [note]):
        h = await s.start(Box.run)
        signal = await with_headers(s, h, carried(await permit(s, "signal", h.id, "put", "one")))
        update = await with_headers(s, h, carried(await permit(s, "update", h.id, "swap", "two")))
        checked = await with_headers(s, h, carried(await permit(s, "update", h.id, "checked", "three")))
        await signal.signal("put", "one")
        await signal.signal("put", "one")
        assert await update.execute_update("swap", "two") == ["one", "two"]
        assert "[M31]" in await refused(update.execute_update("swap", "two"))
        assert await checked.execute_update("checked", "three") == "THREE"
        assert "[M31]" in await refused(checked.execute_update("checked", "three"))
        await h.signal(Box.close)
        assert await h.result() == ["one", "two", "three"]
    assert refusals(s, h) == [("signal", "M31"), ("update", "M31"), ("update", "M31")]
    await replays(s, h)


@pytest.mark.rule("M33")
async def test_a_permit_that_was_used_is_not_good_after_continue_as_new(stage):
    s = await stage()
    async with s.worker(WORKFLOWS, [note]):
        h = await s.start(Again.run, [])
        signal = await with_headers(s, h, carried(await permit(s, "signal", h.id, "put", "one")))
        await signal.signal("put", "one")
        for _ in range(2):
            await go_on(s, h.id)
            await h.execute_update(Again.swap, "here")
            await signal.signal("put", "one")
        await h.signal(Again.close)
        assert await h.result() == ["one", "|", "here", "|", "here"]
    assert refusals(s, h) == [("signal", "M31")] * 2
    await replays(s, s.client.get_workflow_handle(h.id))


@pytest.mark.rule("M23")
async def test_a_permit_for_a_run_is_not_good_for_the_run_that_continues_it(stage):
    s = await stage()
    async with s.worker(WORKFLOWS, [note]):
        h = await s.start(Again.run, [])
        bound = s.client.get_workflow_handle(h.id, run_id=h.result_run_id)
        await bound.signal(Again.put, "one")
        await go_on(s, h.id)
        left = carried(await permit(s, "signal", h.id, "put", "two", run_id=h.result_run_id))
        await h.execute_update(Again.swap, "here")
        await (await with_headers(s, h, left)).signal("put", "two")
        await h.signal(Again.close)
        assert await h.result() == ["one", "|", "here"]
    assert refusals(s, h) == [("signal", "M23")]


async def test_a_reset_run_remembers_what_it_took_and_takes_new_messages(stage):
    s = await stage()
    async with s.worker(WORKFLOWS, [note]):
        h = await s.start(Box.run)
        bound = s.client.get_workflow_handle(h.id, run_id=h.result_run_id)
        await bound.signal(Box.put, "one")
        await bound.execute_update(Box.swap, "two")
        for _ in range(2):
            now = await s.client.get_workflow_handle(h.id).describe()
            current = s.client.get_workflow_handle(h.id, run_id=now.run_id)
            done = [
                event.event_id
                for event in await events(current)
                if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
            ]
            await s.plain.workflow_service.reset_workflow_execution(
                ResetWorkflowExecutionRequest(
                    namespace="default",
                    workflow_execution=WorkflowExecution(workflow_id=h.id, run_id=now.run_id),
                    reason="a test",
                    request_id=unique(),
                    workflow_task_finish_event_id=done[-1],
                )
            )
            again = await s.client.get_workflow_handle(h.id).describe()
            assert again.run_id != now.run_id
            await s.client.get_workflow_handle(h.id, run_id=again.run_id).execute_update(Box.swap, "more")
        latest = s.client.get_workflow_handle(h.id)
        await latest.signal(Box.close)
        heard = await latest.result()
        assert heard[:2] == ["one", "two"]
        assert heard[-1] == "more"
    await replays(s, latest)


@pytest.mark.rule("M46")
async def test_a_key_that_becomes_known_later_changes_no_verdict(stage):
    s = await stage()
    issuer: Any = s.plugin._authority
    key = SigningKey.generate()
    async with s.worker(WORKFLOWS, [note]):
        h = await s.start(Box.run)
        headers = carried(await permit(s, "signal", h.id, "put", "one", signer=key))
        early = await with_headers(s, h, headers)
        await early.signal("put", "one")
        assert await h.query(Box.count) == 0
        s.plugin.gate.trust.add(
            Anchor(kid=key.kid, x=key.x, typ=(Permit.typ,), iss=issuer._state.issuer, nbf=1_767_225_600.0)
        )
        await early.signal("put", "one")
        fresh = await with_headers(s, h, carried(await permit(s, "signal", h.id, "put", "two", signer=key)))
        await fresh.signal("put", "two")
        await h.signal(Box.close)
        assert await h.result() == ["two"]
    assert refusals(s, h) == [("signal", "T1")] * 2
    await replays(s, h)


# The SDK drops the signal's coroutine with the run that it gives up.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:coroutine .* was never awaited")
@pytest.mark.rule("M46", "X4")
@pytest.mark.parametrize("kind", [Box, Strict])
async def test_a_replay_that_does_not_know_a_key_gives_no_verdict(stage, kind):
    s, other = await stage(), await stage()
    async with s.worker(WORKFLOWS, [note]):
        h = await s.start(kind.run)
        await h.signal(Box.put, "one")
        await h.signal(Box.close)
        await h.result()
    for anchor in s.plugin.gate.trust:
        if Permit.typ not in anchor.typ:
            other.plugin.gate.trust.add(anchor)
    with pytest.raises(Exception, match="trust store has no key"):
        await replays(other, h)


@pytest.mark.rule("M47")
async def test_a_signal_waits_for_its_handler_longer_than_its_permit_lasts(stage):
    s = await stage()
    async with s.worker(WORKFLOWS, [note]):
        h = await s.start(Late.run)
        good = await permit(s, "signal", h.id, "late", "came in time")
        short = await permit(s, "signal", h.id, "late", "came in time", exp=good.claims.iat + 1.5)
        await (await with_headers(s, h, carried(short))).signal("late", "came in time")
        await s.plain.get_workflow_handle(h.id).signal("late", "evil")
        assert await h.query(Late.count) == 0
        await asyncio.sleep(1.6)
        await h.signal(Late.put, "now")
        await h.signal(Late.close)
        assert await h.result() == ["now", "came in time"]
    assert refusals(s, h) == [("signal", "M11")]
    await replays(s, h)


@pytest.mark.rule("M48")
async def test_dynamic_handlers_get_what_is_permitted_and_nothing_else(stage):
    s = await stage()
    async with s.worker(WORKFLOWS, [note]):
        h = await s.start(Dynamic.run)
        plain = s.plain.get_workflow_handle(h.id)
        await h.signal("wave", args=[1, 2])
        await plain.signal("wave", args=[1, 2, 3])
        assert await h.query("how", "so") == "how 1"
        assert "[M11]" in await refused(plain.query("how", "so"))
        assert await h.execute_update("do", "it") == "do 1"
        assert "[M11]" in await refused(plain.execute_update("do", "it"))
        await h.signal(APPROVAL_SIGNAL, "a token")
        await plain.signal(APPROVAL_SIGNAL, "a token")
        await h.signal(Dynamic.close)
        assert await h.result() == [["wave", 2], ["do", 1]]
    assert {body["name"] for body in records(s, h)} == {"wave", "how", "do", "close"}
    await replays(s, h)


@pytest.mark.rule("M48")
async def test_the_signal_that_needs_no_permit_does_not_reach_a_handler_of_the_workflows_own(stage):
    s = await stage()
    async with s.worker(WORKFLOWS, [note]):
        h = await s.start(Posing.run)
        await s.plain.get_workflow_handle(h.id).signal(APPROVAL_SIGNAL, "evil")
        await h.signal(Posing.close)
        assert await h.result() == []
    await replays(s, h)


async def test_signal_with_start_carries_both(stage):
    s = await stage()
    async with s.worker(WORKFLOWS, [note]):
        h = await s.start(Busy.run, start_signal="put", start_signal_args=["one"])
        same = await s.start(Busy.run, id=h.id, start_signal="put", start_signal_args=["two"])
        assert same.id == h.id
        await h.signal(Busy.close)
        assert await h.result() == ["one", "two"]
    assert refusals(s, h) == []
    await replays(s, h)


async def test_a_start_that_signals_without_a_permit_starts_and_drops_the_signal(stage):
    s = await stage()
    async with s.worker(WORKFLOWS, [note]):
        id = unique()
        h = await s.start_with(
            headed(await s.grant("Box", id)), Box.run, id=id, start_signal="put", start_signal_args=["evil"]
        )
        await s.client.get_workflow_handle(id).signal(Box.close)
        assert await h.result() == []
    assert refusals(s, h) == [("signal", "M11")]


async def test_update_with_start_carries_both(stage):
    s = await stage()
    async with s.worker(WORKFLOWS, [note]):
        id = unique()
        for text, expected in (("one", ["one"]), ("two", ["one", "two"])):
            start = WithStartWorkflowOperation(
                Busy.run, id=id, task_queue=s.queue, id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING
            )
            assert (
                await s.client.execute_update_with_start_workflow(Busy.swap, text, start_workflow_operation=start)
                == expected
            )
        h = await start.workflow_handle()
        await h.signal(Busy.close)
        assert await h.result() == ["one", "two"]
    await replays(s, h)


async def test_a_denied_update_with_start_starts_nothing_and_says_so_to_whoever_waits(stage):
    s = await stage(PERMIT_ALL + '@id("no") forbid(principal, action == Action::"workflow.update", resource);')
    async with s.worker(WORKFLOWS, [note]):
        start = WithStartWorkflowOperation(
            Box.run, id=unique(), task_queue=s.queue, id_conflict_policy=WorkflowIDConflictPolicy.FAIL
        )
        with pytest.raises(AuthorizationDenied):
            await s.client.execute_update_with_start_workflow(Box.swap, "one", start_workflow_operation=start)
        with pytest.raises(AuthorizationDenied):
            await start.workflow_handle()


async def test_headers_of_megabytes_are_refused_in_a_sentence_and_end_nothing(stage):
    s = await stage()
    async with s.worker(WORKFLOWS, [note]):
        h = await s.start(Box.run)
        huge = await with_headers(s, h, {f"{MESSAGE_HEADER}{'x' * 1_500_000}": Payload(data=b"x")})
        # One at a time: the SDK sends a refused update back with its headers, and a task's answer ends at 4 MiB.
        said = [await refused(huge.execute_update("swap", "evil")) for _ in range(3)]
        assert max(map(len, said)) < 1000
        await h.signal(Box.close)
        assert await h.result() == []
