"""Hosts with state of their own that share one database: what serves once serves once, and what is lost comes back."""

import asyncio
import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity

from exequatur.errors import RepeatedRequestError, ReplayedRequestError, StoreUnavailableError
from exequatur.gate.pins import used_once
from exequatur.lineage.journal import Journal
from exequatur.lineage.ledger import Ledger
from tests.behavior.test_gate import ACTIVITIES, BUDGET, TWICE, look, pay, spend, told
from tests.gate.conftest import PERMIT_ALL, Stage, deeds, failure_of, happened, start_headers
from tests.gate.single import OneActivity, eventually, start_one
from tests.lineage.postgres import Postgres

ASKS = """
@id("calm") permit(principal, action, resource) when { context has behavior && context.behavior.denials_last_hour < 9 };
@id("two-person") @approval("finance, 1, 4h") forbid(principal, action == Action::"pay", resource)
unless { context has approvals && context.approvals.groups.contains("finance") };
@id("starts") permit(principal, action == Action::"workflow.start", resource);
"""
TIME = """
@id("anyone") permit(principal, action, resource);
@id("time") @reason("a second a day") forbid(principal, action == Action::"takes_a_second", resource)
unless { context has behavior && context.behavior.seconds_last_day < 1 };
"""
_go: dict[str, asyncio.Event] = {}


@activity.defn
async def waits(name: str) -> str:
    happened(name)
    await _go[name].wait()
    return name


@activity.defn
async def takes_a_second() -> str:
    happened("ran")
    await asyncio.sleep(1.05)
    return "ran"


async def hosts(stage: Callable[..., Any], policies: str, shared: str, **settings: Any) -> tuple[Stage, Stage]:
    """Two hosts of one trust domain; each has a journal of its own."""
    first = await stage(policies, shared_state=shared, **settings)
    second = await stage(policies, shared_state=shared, state=first.state, **settings)
    return first, second


@pytest.mark.rule("F5")
async def test_a_grant_that_served_on_one_host_serves_no_other_execution_on_another(
    stage: Callable[..., Any], tmp_path: Path
) -> None:
    first, second = await hosts(stage, PERMIT_ALL, str(tmp_path / "shared.db"))
    async with first.worker([OneActivity], ACTIVITIES), second.worker([OneActivity], ACTIVITIES):
        honest = await start_one(first, pay, 1)
        await honest.result()
        arguments = ["pay", [1], 1, 0, 60]
        thief = await second.start_with(await start_headers(honest), OneActivity.run, *arguments, id=honest.id)
        failure = await failure_of(thief)
    assert failure.type == "GrantRejected"
    assert "another execution" in failure.message
    assert deeds(honest.id) == [1]


async def test_the_time_that_a_principal_may_use_holds_on_all_hosts(stage: Callable[..., Any], tmp_path: Path) -> None:
    first, second = await hosts(stage, TIME, str(tmp_path / "shared.db"))
    async with first.worker([OneActivity], [takes_a_second]):
        run = await start_one(first, takes_a_second)
        await run.result()
    assert deeds(run.id) == ["ran"]
    async with second.worker([OneActivity], [takes_a_second], queue="elsewhere"):
        late = await start_one(second, takes_a_second, task_queue="elsewhere")
        assert "a second a day" in (await failure_of(late)).message
    assert deeds(late.id) == []
    assert [each["seconds_last_day"] for each in told(second)] == [0, 1]


@pytest.mark.rule("F4")
async def test_a_request_that_was_used_on_one_host_is_not_used_on_another(
    stage: Callable[..., Any], tmp_path: Path
) -> None:
    first, second = await hosts(stage, PERMIT_ALL, str(tmp_path / "shared.db"))
    _go["once"] = asyncio.Event()
    async with first.worker([OneActivity], [waits]), second.worker([OneActivity], [waits], queue="other"):
        run = await start_one(first, waits, "once")
        await eventually(lambda: deeds(run.id))
        [running] = first.plugin.gate.running
        attempt = running.attempt
        request = attempt.request_id or ""
        await used_once(attempt, request)
        elsewhere = replace(attempt, gate=second.plugin.gate, use="another delivery")
        with pytest.raises(ReplayedRequestError) as raised:
            await used_once(elsewhere, request)
        assert not isinstance(raised.value, RepeatedRequestError)
        # The same number of an attempt that was scheduled at another time comes of a reset, which Cedar is asked about.
        moment = attempt.info.current_attempt_scheduled_time
        later = replace(attempt.info, current_attempt_scheduled_time=moment.replace(year=moment.year + 1))
        with pytest.raises(RepeatedRequestError):
            await used_once(replace(elsewhere, info=later), request)
        await used_once(replace(elsewhere, info=later, reset=True), request)
        _go["once"].set()
        await run.result()


@pytest.mark.rule("U9")
async def test_while_the_shared_database_is_away_nothing_runs_and_nothing_is_lost(
    stage: Callable[..., Any], postgres: Postgres
) -> None:
    with postgres.database() as shared:
        # Not as shared_state of the authority, too: this is about the ledger.
        host = await stage(BUDGET, unavailable_wait="4s", unavailable_retry_delay="100ms")
        host.plugin.gate.counting._where, host.plugin.gate.counting.shared = shared, True
        async with host.worker([OneActivity], ACTIVITIES):
            assert await (await start_one(host, spend, 30)).result() == 30
            postgres.stop()
            try:
                refused = await start_one(host, spend, 31)
                failure = await failure_of(refused)
                assert failure.type == "AuthorizationUnavailable"
                assert deeds(refused.id) == []
                assert "ledger" in (host.plugin.gate.unavailable() or "")
            finally:
                postgres.start()
            assert await (await start_one(host, spend, 32, attempts=0)).result() == 32
        assert [each["cost_last_day"] for each in told(host)] == [0, 30]
        with Ledger.open(shared) as ledger:
            events = [each.event for each in ledger.events()]
            assert [event.cost for event in events if event.kind == "asked"] == [30, 32]
            assert sum(event.kind == "ended" for event in events) == 2


@pytest.mark.rule("writer.W1")
async def test_what_a_crash_kept_from_the_evidence_is_added_when_the_worker_is_back(stage: Callable[..., Any]) -> None:
    host = await stage(TWICE)
    async with host.worker([OneActivity], ACTIVITIES):
        await (await start_one(host, pay, 1)).result()
    assert positions(host) == [0, 1]
    [log] = {record.log_id for record in host.records("behavior")}
    # As if the process had ended between the ledger and the journal.
    with Ledger.open(host.state / "ledger.db") as ledger:
        event = next(iter(ledger.events())).event
        ledger.add([(event, False)], log_id=log)
        ledger.add([(event, False)], log_id="0" * 16)  # of a host elsewhere, which has its own evidence
    async with host.worker([OneActivity], ACTIVITIES):
        await (await start_one(host, look, "x")).result()
    # Whichever journal the worker has now. Two of one place are one.
    assert set(positions(host)) == {0, 1, 2, 4, 5}


@pytest.mark.rule("writer.W1")
async def test_what_a_process_that_is_gone_kept_from_the_evidence_is_added_by_another(
    stage: Callable[..., Any],
) -> None:
    host = await stage(TWICE)
    async with host.worker([OneActivity], ACTIVITIES):
        await (await start_one(host, pay, 1)).result()
    [log] = {record.log_id for record in host.records("behavior")}
    with Ledger.open(host.state / "ledger.db") as ledger:
        ledger.add([(next(iter(ledger.events())).event, False)], log_id=log)
    # Nobody has the journals that are there, so the next worker begins one of its own.
    with ExitStack() as held:
        for _ in list((host.state / "journal").glob("*.db")):
            held.enter_context(Journal.open(host.state / "journal"))
        async with host.worker([OneActivity], ACTIVITIES):
            await (await start_one(host, look, "x")).result()
    assert {record.log_id for record in host.records("behavior")} > {log}
    assert set(positions(host)) == {0, 1, 2, 3, 4}


def positions(host: Stage) -> list[int]:
    return sorted(json.loads(record.body)["position"] for record in host.records("behavior"))


@pytest.mark.rule("counting.C3")
async def test_what_is_voided_counts_for_nothing(stage: Callable[..., Any]) -> None:
    host = await stage(BUDGET)
    async with host.worker([OneActivity], ACTIVITIES):
        honest = await start_one(host, spend, 30)
        await honest.result()
        arguments = ["spend", [30], 1, 0, 60]
        thief = await host.start_with(await start_headers(honest), OneActivity.run, *arguments, id=honest.id)
        assert (await failure_of(thief)).type == "GrantRejected"
        assert await (await start_one(host, spend, 40)).result() == 40
    last = told(host)[-1]
    assert (last["cost_last_day"], last["last_hour"], last["denials_last_hour"]) == (30, 1, 0)


@pytest.mark.rule("counting.C3")
async def test_what_people_are_asked_about_is_no_denial(stage: Callable[..., Any]) -> None:
    host = await stage(ASKS)
    async with host.worker([OneActivity], ACTIVITIES):
        run = await start_one(host, pay, 1)
        await eventually(lambda: host.records("challenge"))
        assert await (await start_one(host, look, "x")).result() == "x"
        await host.plain.get_workflow_handle(run.id).terminate()
    assert deeds(run.id) == []
    assert told(host)[-1]["denials_last_hour"] == 0


@pytest.mark.rule("counting.C4")
async def test_with_shared_state_all_is_counted_before_a_policy_reads_it(
    stage: Callable[..., Any], tmp_path: Path
) -> None:
    host = await stage(PERMIT_ALL, shared_state=str(tmp_path / "shared.db"), policy_poll_interval="100ms")
    async with host.worker([OneActivity], ACTIVITIES):
        for _ in range(2):
            await (await start_one(host, pay, 1)).result()
        assert told(host) == []
        digest = host.plugin.gate.policy.bundle.digest
        host.write(TWICE)
        await eventually(lambda: host.plugin.gate.policy.bundle.digest != digest)
        third = await start_one(host, pay, 1)
        assert (await failure_of(third)).type == "AuthorizationDenied"
    assert [each["last_hour"] for each in told(host)] == [2]


@pytest.mark.rule("writer.W1", "writer.W3")
@pytest.mark.parametrize("policies", [PERMIT_ALL, TWICE], ids=["noted", "waited for"])
async def test_what_was_stored_although_the_database_could_not_say_so_counts_once(
    stage: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policies: str
) -> None:
    stored, failures = Ledger.add, [StoreUnavailableError("the connection was lost at the commit")]

    def add(ledger: Ledger, batch: Any, *, log_id: str = "") -> Any:
        done = stored(ledger, batch, log_id=log_id)
        if batch and failures:
            raise failures.pop()
        return done

    monkeypatch.setattr(Ledger, "add", add)
    where = str(tmp_path / "shared.db")
    host = await stage(policies, shared_state=where)
    async with host.worker([OneActivity], ACTIVITIES):
        assert await (await start_one(host, pay, 1, attempts=0)).result() == 1
    with Ledger.open(where) as ledger:
        events = [each.event for each in ledger.events()]
    kinds = sorted(event.kind for event in events)
    assert kinds == (["asked", "ended"] if policies == PERMIT_ALL else ["asked", "asked", "ended", "voided"])
    assert sorted(set(positions(host))) == list(range(len(events)))
