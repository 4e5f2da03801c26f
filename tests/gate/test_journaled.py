"""Every decision and every outcome is in the evidence journal, and nothing that should not be."""

import asyncio
import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity
from temporalio.exceptions import ApplicationError

from exequatur.gate.wire import ACTIVITY_HEADER
from exequatur.lineage.record import read, verify
from exequatur.statements.jws import parse
from exequatur.statements.models import Receipt, Request, Seal
from exequatur.statements.packing import unpack
from tests.gate.conftest import PERMIT_ALL, deeds, failure_of, happened
from tests.gate.single import OneActivity, eventually, start_one

MARKER = "zxq-4711-not-for-the-record"


def _looked_up(folder: str) -> list[str]:
    """Kinds of the records on disk that concern the activity that asks."""
    info = activity.info()
    return [
        record.kind
        for file in Path(folder).glob("*.db")
        for record in read(file)
        if (info.workflow_id or "").encode() in record.body and record.attempt == info.attempt
    ]


@activity.defn
async def reads_async(folder: str) -> list[str]:
    return _looked_up(folder)


@activity.defn
def reads_in_thread(folder: str) -> list[str]:
    return _looked_up(folder)


@activity.defn
async def act(secret: str) -> str:
    happened(secret)
    return f"{secret}-done"


@activity.defn
async def flaky(secret: str) -> str:
    if activity.info().attempt < 3:
        raise ApplicationError("again", secret)
    return secret


@activity.defn
async def sleeps(secret: str) -> None:
    happened("began")
    activity.heartbeat(secret)
    await asyncio.sleep(60)


@pytest.mark.rule("F3")
@pytest.mark.parametrize("body", [reads_async, reads_in_thread], ids=["async", "thread"])
async def test_the_body_finds_its_own_decision_on_disk(stage: Callable[..., Any], body: Any) -> None:
    s = await stage()
    async with s.worker([OneActivity], [body]):
        handle = await start_one(s, body, str(s.state / "journal"))
        assert await handle.result() == ["decision"]


@pytest.mark.rule("F8")
async def test_every_attempt_has_its_decision_and_its_receipt(stage: Callable[..., Any]) -> None:
    s = await stage()
    async with s.worker([OneActivity], [flaky]):
        handle = await start_one(s, flaky, "x", attempts=5)
        assert await handle.result() == "x"
    receipts = s.statements("receipt", Receipt)
    decisions = s.records("decision")
    assert [(receipt.attempt, receipt.outcome) for receipt in receipts] == [
        (1, "failed"),
        (2, "failed"),
        (3, "completed"),
    ]
    assert [record.attempt for record in decisions] == [1, 2, 3]
    # Each receipt names the place of its decision.
    for receipt, decision in zip(receipts, decisions, strict=True):
        assert receipt.log is not None
        assert (receipt.log.id, receipt.log.index, receipt.log.head) == (
            decision.log_id,
            decision.index,
            decision.head,
        )
    # One request for all attempts, which is the one in the history.
    history = await handle.fetch_history()
    [event] = [e for e in history.events if e.HasField("activity_task_scheduled_event_attributes")]
    packed = event.activity_task_scheduled_event_attributes.header.fields[ACTIVITY_HEADER].data
    [request] = [parse(token, Request) for token in unpack(packed) if _is_request(token)]
    assert {receipt.request for receipt in receipts} == {request.claims.jti}


def _is_request(token: str) -> bool:
    try:
        parse(token, Request)
    except Exception:
        return False
    return True


@pytest.mark.rule("F3")
@pytest.mark.rule("F8")
async def test_denials_and_revocations_are_on_record(stage: Callable[..., Any]) -> None:
    s = await stage(PERMIT_ALL + '@id("no") forbid(principal, action == Action::"act", resource);')
    async with s.worker([OneActivity], [act, sleeps]):
        denied = await start_one(s, act, "x")
        failure = await failure_of(denied)
        assert failure.details[0]["receipt"].encode() in [record.body for record in s.records("receipt")]
        revoked = await start_one(s, sleeps, "x", heartbeat=10)
        await eventually(lambda: deeds(revoked.id))
        s.plugin.revoke(workflow=revoked.id, reason="stop")
        failure = await failure_of(revoked)
        assert failure.details[0]["receipt"].encode() in [record.body for record in s.records("receipt")]
        ungoverned = await start_one(s, act, "x", client=s.plain)
        await failure_of(ungoverned)
    assert [json.loads(record.body)["decision"] for record in s.records("decision")] == ["deny", "allow", "none"]
    denial, revocation, refusal = s.statements("receipt", Receipt)
    assert (denial.outcome, denial.decision, denial.policies) == ("denied", "deny", ("no",))
    assert (revocation.outcome, revocation.activity_type) == ("revoked", "sleeps")
    assert (refusal.outcome, refusal.decision, refusal.workflow_id) == ("rejected", "none", ungoverned.id)
    assert deeds(denied.id) == deeds(ungoverned.id) == []


async def test_cancelled_attempts_are_on_record(stage: Callable[..., Any]) -> None:
    s = await stage()
    async with s.worker([OneActivity], [sleeps]):
        handle = await start_one(s, sleeps, "x", heartbeat=1)
        await eventually(lambda: deeds(handle.id))
        await handle.cancel()
        await eventually(lambda: [r.outcome for r in s.statements("receipt", Receipt)] == ["cancelled"])


async def test_seals_are_on_record_and_the_whole_log_verifies(stage: Callable[..., Any]) -> None:
    s = await stage()
    async with s.worker([OneActivity], [act]):
        handles = [await start_one(s, act, "x") for _ in range(5)]
        await asyncio.gather(*(handle.result() for handle in handles))
    seals = s.statements("seal", Seal)
    assert {seal.workflow_id for seal in seals} == {handle.id for handle in handles}
    assert {seal.outcome for seal in seals} == {"completed"}
    # The authority keeps a journal of its own for what is started before the worker runs.
    assert sum(map(verify, (s.state / "journal").glob("*.db"))) == len(s.records())
    kinds = [record.kind for record in s.records()]
    assert kinds[0] == "bundle"
    assert {kind: kinds.count(kind) for kind in kinds if kind != "bundle"} == dict.fromkeys(
        ("authority", "decision", "receipt", "seal"), 5
    )


async def test_of_the_arguments_the_journal_holds_what_policies_read(stage: Callable[..., Any]) -> None:
    s = await stage(
        PERMIT_ALL
        + '@id("no") forbid(principal, action == Action::"pays", resource) when { context.args.order.total > 9 };'
    )

    @activity.defn
    async def pays(order: dict[str, Any], note: str) -> None:
        raise AssertionError("it ran")

    async with s.worker([OneActivity], [pays]):
        await failure_of(await start_one(s, pays, {"total": 10, "iban": MARKER}, MARKER))
    [decision] = s.records("decision")
    assert json.loads(json.loads(decision.body)["arguments"]) == {"order": {"total": 10}}
    assert not any(MARKER in record.body.decode() for record in s.records())


async def test_what_is_revoked_is_on_record_before_the_decisions_that_know_it(stage: Callable[..., Any]) -> None:
    s = await stage()
    s.plugin.revoke(workflow="elsewhere", reason="before")
    async with s.worker([OneActivity], [act]):
        s.plugin.revoke(principal='User::"nobody"', reason="while it runs")
        await (await start_one(s, act, "x")).result()
    kinds = [record.kind for record in s.records()]
    assert kinds.count("revocation") == 2
    assert kinds.index("decision") > max(place for place, kind in enumerate(kinds) if kind == "revocation")
    reasons = [json.loads(record.body)["reason"] for record in s.records() if record.kind == "revocation"]
    assert reasons == ["before", "while it runs"]


async def test_no_argument_result_or_detail_is_written_or_logged(
    stage: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "exequatur")
    s = await stage(PERMIT_ALL + '@id("no") forbid(principal, action == Action::"reads_async", resource);')
    async with s.worker([OneActivity], [act, flaky, sleeps, reads_async]):
        assert MARKER in await (await start_one(s, act, MARKER)).result()
        await (await start_one(s, flaky, MARKER, attempts=5)).result()
        await failure_of(await start_one(s, reads_async, MARKER))
        revoked = await start_one(s, sleeps, MARKER, heartbeat=10)
        await eventually(lambda: deeds(revoked.id))
        s.plugin.revoke(workflow=revoked.id, reason="stop")
        failure = await failure_of(revoked)
    assert MARKER not in failure.message
    for file in s.state.rglob("*"):
        assert file.is_dir() or MARKER.encode() not in file.read_bytes(), file
    ours = [record for record in caplog.records if record.name.startswith("exequatur")]
    assert ours
    for record in ours:
        assert MARKER not in record.getMessage()
        assert MARKER not in str(vars(record))
        assert "PRIVATE KEY" not in str(vars(record))


async def test_log_records_carry_their_fields(stage: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    s = await stage(PERMIT_ALL + '@id("no") forbid(principal, action == Action::"act", resource);')
    async with s.worker([OneActivity], [act]):
        handle = await start_one(s, act, "x")
        await failure_of(handle)
    [record] = [record for record in caplog.records if record.getMessage().startswith("AuthorizationDenied")]
    fields = vars(record)
    assert fields["workflow_id"] == handle.id
    assert (fields["activity_type"], fields["attempt"], fields["policies"]) == ("act", 1, ["no"])


async def test_a_journal_that_stops_between_decision_and_receipt_keeps_the_receipt(stage: Callable[..., Any]) -> None:
    s = await stage()
    with ThreadPoolExecutor(1) as pool:

        @activity.defn
        def breaks_the_journal() -> str:
            path = s.plugin.gate.require_journal().path
            path.rename(path.with_suffix(".aside"))
            return "done"

        async with s.worker([OneActivity], [breaks_the_journal], activity_executor=pool):
            assert await (await start_one(s, breaks_the_journal)).result() == "done"
            writer = s.plugin.gate.require_journal()
            await eventually(lambda: not writer.healthy)
            writer.path.with_suffix(".aside").rename(writer.path)
            await eventually(lambda: writer.healthy)
    assert [receipt.outcome for receipt in s.statements("receipt", Receipt)] == ["completed"]
    kept = [record.kind for record in read(writer.path)]
    assert verify(writer.path) == len(kept)
    assert kept[-3:] == ["decision", "receipt", "seal"]
