"""Signals from one run to another carry the sender's chain and Cedar's answer; the receiver believes nothing less."""

import asyncio
import json
from datetime import timedelta
from typing import Any

import pytest
from temporalio import workflow
from temporalio.client import WorkflowHandle
from temporalio.worker import Replayer

import exequatur.workflow
from exequatur.gate.wire import MESSAGE_HEADER
from exequatur.statements.jws import parse, sign, type_of
from exequatur.statements.keys import SigningKey
from exequatur.statements.models import Delegation, Grant, Message
from tests.gate.boxes import TIMEOUT, Box, carried, note, with_headers
from tests.gate.conftest import PERMIT_ALL, Stage, events, headed, sandbox, unique
from tests.gate.single import eventually
from tests.gate.test_availability import no_journal

CALM = (
    PERMIT_ALL + '@id("calm") @reason("no shouting") forbid(principal, action == Action::"workflow.signal", resource)'
)
SHOUTS = ' when { context.message.name == "put" && context.message.sender like "shouter*" };\n'
NO_SIGNALS = '@id("none") forbid(principal, action == Action::"workflow.signal", resource);'


@workflow.defn
class Sender:
    """Signals another workflow, and goes on whatever comes of that."""

    @workflow.run
    async def run(self, target: str, run_id: str | None, texts: list[str]) -> str:
        other = workflow.get_external_workflow_handle(target, run_id=run_id)
        try:
            for text in texts:
                await other.signal("put", text)
        except Exception as err:
            return f"{type(err).__name__}: {err}"
        return "sent"


@workflow.defn(failure_exception_types=[Exception])
class StrictSender:
    """Fails of every exception."""

    @workflow.run
    async def run(self, target: str, run_id: str | None, texts: list[str]) -> str:
        for text in texts:
            await workflow.get_external_workflow_handle(target, run_id=run_id).signal("put", text)
        return "sent"


@workflow.defn
class Parent:
    """Signals its child, held to a restriction or not."""

    @workflow.run
    async def run(self, child_id: str, forbid: str | None) -> list[Any]:
        child = await workflow.start_child_workflow(Box.run, id=child_id)
        await child.signal(Box.put, "free")
        if forbid is not None:
            ends = timedelta(milliseconds=1) if forbid == "ended" else None
            with exequatur.workflow.restricted(forbid=None if ends else forbid, expires_in=ends):
                await asyncio.sleep(0.1)
                await child.signal(Box.put, "held")
        await child.signal(Box.close)
        return await child


@workflow.defn
class Reporter:
    """A child that signals its parent."""

    @workflow.run
    async def run(self, text: str) -> None:
        parent = workflow.info().parent
        assert parent is not None
        await workflow.get_external_workflow_handle(parent.workflow_id).signal("put", text)
        await workflow.execute_activity(note, text, start_to_close_timeout=TIMEOUT)


@workflow.defn
class Listener(Box):
    """Waits for what its child reports."""

    @workflow.run
    async def run(self) -> list[Any]:
        await workflow.execute_child_workflow(Reporter.run, "report")
        return self.heard


WORKFLOWS: list[type] = [Box, Sender, StrictSender, Parent, Reporter, Listener]


async def replays(stage: Stage, *handles: WorkflowHandle[Any, Any]) -> None:
    for handle in handles:
        replayer = Replayer(workflows=WORKFLOWS, plugins=[stage.plugin], workflow_runner=sandbox())
        await replayer.replay_workflow(await handle.fetch_history())


def heard(stage: Stage, workflow_id: str) -> list[tuple[Any, ...]]:
    """Sender, principal, and the rule that refused it, of each signal to a workflow."""
    bodies = [json.loads(record.body) for record in stage.records("message")]
    return [
        (body["sender"], body["principal"], body["rule"])
        for body in bodies
        if body["workflow_id"] == workflow_id and body["name"] == "put"
    ]


async def signal_header(handle: WorkflowHandle[Any, Any]) -> list[str]:
    """The tokens of the last signal that a run was sent."""
    headers = [
        event.workflow_execution_signaled_event_attributes.header.fields[MESSAGE_HEADER]
        for event in await events(handle)
        if event.HasField("workflow_execution_signaled_event_attributes")
        and MESSAGE_HEADER in event.workflow_execution_signaled_event_attributes.header.fields
    ]
    tokens: list[str] = json.loads(headers[-1].data).split("~")
    return tokens


@pytest.mark.parametrize("cached", [1000, 0])
async def test_a_permitted_signal_to_another_workflow_arrives_with_its_sender(stage, cached):
    s = await stage()
    async with s.worker(WORKFLOWS, [note], max_cached_workflows=cached):
        box = await s.start(Box.run)
        sender = await s.start(Sender.run, box.id, None, ["one", "two"])
        assert await sender.result() == "sent"
        bound = await s.start(Sender.run, box.id, box.result_run_id, ["three"])
        assert await bound.result() == "sent"
        await box.signal(Box.close)
        assert await box.result() == ["one", "two", "three"]
    bot = 'Agent::"ops-bot"'
    assert heard(s, box.id) == [(sender.id, bot, None), (sender.id, bot, None), (bound.id, bot, None)]
    await replays(s, box, sender, bound)


async def test_children_and_parents_signal_each_other(stage):
    s = await stage()
    async with s.worker(WORKFLOWS, [note]):
        child = unique()
        parent = await s.start(Parent.run, child, None)
        assert await parent.result() == ["free"]
        listener = await s.start(Listener.run)
        assert await listener.result() == ["report"]
    await replays(s, parent, s.client.get_workflow_handle(child), listener)
    kinds = [type_of(token) for token in await signal_header(listener)]
    assert (kinds[0], kinds[-1]) == (Grant.typ, Message.typ)
    assert Delegation.typ in kinds


@pytest.mark.rule("X6", "X9")
async def test_a_signal_that_cedar_denies_is_sent_and_dropped(stage):
    s = await stage(CALM + SHOUTS)
    async with s.worker(WORKFLOWS, [note]):
        box = await s.start(Box.run)
        shouter = await s.start(Sender.run, box.id, None, ["evil"], id=unique("shouter"))
        assert await shouter.result() == "sent"
        quiet = await s.start(Sender.run, box.id, None, ["good"])
        await quiet.result()
        await box.signal(Box.close)
        assert await box.result() == ["good"]
    assert [rule for _, _, rule in heard(s, box.id)] == ["M22", None]
    decided = [json.loads(record.body) for record in s.records("authority")]
    [denied] = [body for body in decided if body.get("sender") == shouter.id]
    assert (denied["decision"], denied["action"], denied["policies"]) == ("deny", "workflow.signal", ["calm"])
    assert "no shouting" in denied["reason"]
    await replays(s, box, shouter, quiet)


@pytest.mark.rule("X8")
@pytest.mark.parametrize("forbid", [NO_SIGNALS, "ended"])
async def test_a_restriction_of_the_sender_forbids_its_signals(stage, forbid):
    s = await stage()
    async with s.worker(WORKFLOWS, [note]):
        child = unique()
        parent = await s.start(Parent.run, child, forbid)
        assert await parent.result() == ["free"]
    assert [rule for _, _, rule in heard(s, child)] == [None, "M22"]
    await replays(s, parent, s.client.get_workflow_handle(child))


@pytest.mark.rule("X8")
async def test_a_sender_that_was_revoked_is_not_heard(stage):
    s = await stage()
    async with s.worker(WORKFLOWS, [note]):
        box = await s.start(Box.run)
        id = unique()
        grant = await s.grant("Sender", id, box.id, None, ["evil"])
        s.plugin.revoke(grant=grant.claims.jti, reason="it was stolen")
        sender = await s.start_with(headed(grant), Sender.run, box.id, None, ["evil"], id=id)
        assert await sender.result() == "sent"
        await box.signal(Box.close)
        assert await box.result() == []
    assert [rule for _, _, rule in heard(s, box.id)] == ["M22"]


@pytest.mark.rule("X8")
async def test_a_workflow_that_was_revoked_is_sent_nothing(stage):
    s = await stage()
    async with s.worker(WORKFLOWS, [note]):
        box, another = await s.start(Box.run), await s.start(Box.run)
        s.plugin.revoke(workflow=box.id, reason="it was stolen")
        for target in (box, another):
            assert await (await s.start(Sender.run, target.id, None, ["one"])).result() == "sent"
        await another.signal(Box.close)
        assert await another.result() == ["one"]
        await eventually(lambda: heard(s, box.id))
        await s.plain.get_workflow_handle(box.id).terminate()
    assert [rule for _, _, rule in heard(s, box.id)] == ["M22"]


@pytest.mark.rule("X8")
async def test_a_sender_whose_start_its_grant_does_not_cover_is_not_heard(stage):
    s = await stage()
    async with s.worker(WORKFLOWS, [note]):
        box, id = await s.start(Box.run), unique()
        grant = await s.grant("Sender", id, "another input")
        sender = await s.start_with(headed(grant), Sender.run, box.id, None, ["evil"], id=id)
        assert await sender.result() == "sent"
        await box.signal(Box.close)
        assert await box.result() == []
    assert [rule for _, _, rule in heard(s, box.id)] == ["M22"]


async def test_a_sender_whose_grant_has_ended_is_not_heard(stage):
    s = await stage()
    async with s.worker(WORKFLOWS, [note]):
        box, id = await s.start(Box.run), unique()
        issued = (await s.grant("Sender", id)).claims.iat - 100
        times = {"iat": issued, "nbf": issued, "start_by": issued + 98, "exp": issued + 99}
        grant = await s.grant("Sender", id, box.id, None, ["evil"], **times)
        sender = await s.start_with(headed(grant), Sender.run, box.id, None, ["evil"], id=id)
        assert await sender.result() == "sent"
        await box.signal(Box.close)
        assert await box.result() == []
    assert [rule for _, _, rule in heard(s, box.id)] == ["M21"]


async def test_an_ungoverned_run_is_not_heard_by_a_governed_one(stage):
    s = await stage()
    async with s.worker(WORKFLOWS, [note]):
        box = await s.start(Box.run)
        sender = await s.start(Sender.run, box.id, None, ["evil"], client=s.plain)
        assert await sender.result() == "sent"
        deaf = await s.start(Box.run, client=s.plain)
        governed = await s.start(Sender.run, deaf.id, None, ["one"])
        assert await governed.result() == "sent"
        await deaf.signal(Box.close)
        assert await deaf.result() == ["one"]
        await box.signal(Box.close)
        assert await box.result() == []
    assert heard(s, box.id) == [(None, None, "M11")]


async def test_a_run_of_another_trust_domain_is_not_heard(stage):
    s, other = await stage(), await stage(trust_domain="another.test")
    async with s.worker(WORKFLOWS, [note]), other.worker(WORKFLOWS, [note]):
        box = await s.start(Box.run)
        sender = await other.start(Sender.run, box.id, None, ["evil"])
        assert await sender.result() == "sent"
        await box.signal(Box.close)
        assert await box.result() == []
    assert heard(s, box.id) == [(None, None, "M12")]
    await replays(s, box)


async def test_a_run_of_another_authority_in_the_same_place_is_not_heard_and_wedges_nothing(stage):
    s, other = await stage(), await stage()
    async with s.worker(WORKFLOWS, [note]), other.worker(WORKFLOWS, [note]):
        box = await s.start(Box.run)
        sender = await other.start(Sender.run, box.id, None, ["evil", "evil"])
        assert await sender.result() == "sent"
        await box.signal(Box.close)
        assert await box.result() == []
    assert heard(s, box.id) == [(None, None, "T1")] * 2
    await replays(s, box)


async def test_a_signals_message_is_good_once_and_for_its_receiver_only(stage):
    s = await stage()
    async with s.worker(WORKFLOWS, [note]):
        box, another = await s.start(Box.run), await s.start(Box.run)
        await (await s.start(Sender.run, box.id, None, ["one"])).result()
        await box.query(Box.count)
        stolen = carried(*await signal_header(box))
        for victim in (box, another):
            await (await with_headers(s, victim, stolen)).signal("put", "one")
        await (await with_headers(s, box, stolen)).signal("put", "two")
        for handle, expected in ((box, ["one"]), (another, [])):
            await handle.signal(Box.close)
            assert await handle.result() == expected
    assert [rule for _, _, rule in heard(s, box.id)] == [None, "M31", "M16"]
    assert [rule for _, _, rule in heard(s, another.id)] == ["M14"]


async def test_a_message_that_was_tampered_with_is_dropped(stage):
    s = await stage(CALM + SHOUTS)
    async with s.worker(WORKFLOWS, [note]):
        box = await s.start(Box.run)
        await (await s.start(Sender.run, box.id, None, ["evil"], id=unique("shouter"))).result()
        await box.query(Box.count)
        tokens = await signal_header(box)
        denied = parse(tokens[-1], Message).claims
        allowed = denied.model_copy(update={"decision": "allow", "reason": None})
        forged = sign(allowed, SigningKey.generate()).text
        header, _, signature = tokens[-1].split(".")
        mixed = ".".join([header, forged.split(".")[1], signature])
        for last in (forged, mixed):
            await (await with_headers(s, box, carried(*tokens[:-1], last))).signal("put", "evil")
        await (await with_headers(s, box, carried(tokens[-1]))).signal("put", "evil")
        await box.signal(Box.close)
        assert await box.result() == []
    assert [rule for _, _, rule in heard(s, box.id)] == ["M22", "C4", "V7", "M11"]


@pytest.mark.rule("X7")
@pytest.mark.parametrize("kind", [Sender, StrictSender])
async def test_while_it_cannot_be_decided_the_sender_waits_whatever_its_code_catches(stage, kind):
    s = await stage()
    async with s.worker(WORKFLOWS, [note]):
        box, id = await s.start(Box.run), unique()
        grant = await s.grant(kind.__name__, id, box.id, None, ["one"])
        async with no_journal(s):
            sender = await s.start_with(headed(grant), kind.run, box.id, None, ["one"], id=id)
            await failed_task(sender)
        assert await sender.result() == "sent"
        await box.signal(Box.close)
        assert await box.result() == ["one"]
    await replays(s, box, sender)


async def failed_task(handle: WorkflowHandle[Any, Any]) -> None:
    """Wait until a workflow task has failed, and see why."""
    for _ in range(500):
        failed = [
            event.workflow_task_failed_event_attributes.failure.message
            for event in await events(handle)
            if event.HasField("workflow_task_failed_event_attributes")
        ]
        if failed:
            assert "cannot be decided now: the evidence journal cannot be written" in failed[0]
            return
        await asyncio.sleep(0.02)
    raise AssertionError("no workflow task has failed")
